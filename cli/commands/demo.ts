import { Command } from '@commander-js/extra-typings';

export function demoCommand() {
  return new Command('demo')
    .description('Show the whole system at work, against a simulated marketplace, and prove it.')
    .option('--once', 'end after the proof: 0 when everything was proven, else 1')
    .addHelpText(
      'after',
      [
        '',
        'It needs nothing and leaves nothing: the database, the ports and the folder are its own.',
        'What the environment says of other installations is not used.',
        '',
        'Example:',
        '  $ npx latchkey demo --once',
      ].join('\n'),
    )
    .action(async (options) => {
      const { runDemo } = await import('../demo/run-demo.ts');
      await runDemo({ isOnce: options.once === true });
    });
}

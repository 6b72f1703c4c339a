import { listOf } from '../output.ts';

/** What to look at while the demo stays up. */
export function describeWhereNext(demo: {
  dataDir: string;
  logPath: string;
  publicUrl: string;
  operator: { name: string; password: string };
  order: string | undefined;
  /** The user's environment names another database, which commands would take. */
  mustHideDatabaseUrl: boolean;
}): string {
  const { dataDir, publicUrl, operator } = demo;
  const hidden = demo.mustHideDatabaseUrl ? 'DATABASE_URL= ' : '';
  const command = `${hidden}LATCHKEY_DATA_DIR=${dataDir} npx latchkey`;
  return [
    'Where to look next:',
    listOf([
      ['  an order', `${command} order show ${demo.order ?? 'ORDER'}`],
      ['  the queues', `${publicUrl}/ops/queues   (${operator.name}, ${operator.password})`],
      ['  the figures', `${publicUrl}/metrics`],
      ['  the log', demo.logPath],
      ['  your product', 'README.md, "Connect a real product in five steps"'],
    ]),
    '',
    'It all stays up until Ctrl-C, which removes it.',
  ].join('\n');
}

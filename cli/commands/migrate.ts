import { Command } from '@commander-js/extra-typings';

export function migrateCommand() {
  return new Command('migrate')
    .description('bring the database to the newest schema; does nothing where it is')
    .option('--json', 'print nothing but JSON')
    .addHelpText(
      'after',
      '\nExample:\n  $ DATABASE_URL=postgres://latchkey@db/latchkey npx latchkey migrate',
    )
    .action(async (options) => {
      const { withContext } = await import('../context.ts');
      const { countPendingMigrations } = await import('../../db/database-facts.ts');
      const { migrate } = await import('../../db/migrate.ts');
      const { print } = await import('../output.ts');
      await withContext(
        async ({ db, databaseUrl }) => {
          const applied = await countPendingMigrations(db.pool);
          // Also without new migrations: partitions are made here.
          await migrate(databaseUrl);
          print({ applied }, options, () =>
            applied === 0
              ? 'The schema is the newest already.'
              : `Applied ${applied} migration${applied === 1 ? '' : 's'}.`,
          );
        },
        { migrate: false },
      );
    });
}

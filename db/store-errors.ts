import pg from 'pg';

/**
 * data: a row broke a rule, its neighbours are good. try again: the connection is gone or another
 * transaction was in the way, the rows are good. down: nothing can be stored now.
 */
export type StoreErrorKind = 'data' | 'try again' | 'down';

/** By SQLSTATE, see the appendix "PostgreSQL Error Codes" of its manual. */
export function classifyStoreError(error: unknown): StoreErrorKind {
  if (!(error instanceof pg.DatabaseError) || error.code === undefined) return 'try again';
  const { code } = error;
  // cardinality violation, bad data, broken constraint
  if (['21', '22', '23'].includes(code.slice(0, 2))) return 'data';
  // 0A000: a plan older than a migration; 40: serialization, deadlock; 57P: the server goes away
  if (code === '0A000' || code.startsWith('40') || code.startsWith('57P')) return 'try again';
  return 'down';
}

/** The business id that the marketplace proposed is another order's instance id already. */
export function isPublicIdTaken(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.constraint === 'instances_public_id';
}

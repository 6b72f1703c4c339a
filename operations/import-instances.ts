import { createHash } from 'node:crypto';
import { writeAudit } from '../db/audit.ts';
import {
  type StandingInstance,
  drawInstanceIds,
  insertImportedInstances,
  readStandingInstances,
} from '../db/import-instances.ts';
import { findProduct, readProducts } from '../db/products.ts';
import { accessDataSchema } from '../protocol/saas-v2/reply.ts';
import type { KeyedActor } from './actor.ts';
import {
  type ImportColumn,
  type ImportedRow,
  importColumns,
  readImportedRow,
} from './imported-row.ts';

/** A record of the file, as any reader of tables gives it; the first one names the columns. */
export type TableRecord = { line: number; fields: readonly string[] };

export type ImportCounts = {
  /** Rows of the file, without the one that names the columns. */
  rows: number;
  /** Written now; in a dry run what would be. */
  imported: number;
  /** Stood there with just this already. */
  alreadyThere: number;
  /** Stand there with something else, which stays: by line, with the columns that differ. */
  differing: { line: number; columns: string[] }[];
  /** Rows that do not fit, by line. */
  misfits: { line: number; reason: string }[];
};

export type ImportOutcome =
  | ({ kind: 'imported' | 'checked' } & ImportCounts)
  /** Nothing was written, because of these rows. */
  | ({ kind: 'misfits' } & ImportCounts)
  | { kind: 'unknown-product'; known: string[] }
  /** Its instances are made here and nowhere else. */
  | { kind: 'wrong-provisioner'; provisioner: string }
  | { kind: 'bad-header'; problem: string };

/** Rows of one transaction. */
const batchSize = 1_000;

/**
 * Takes instances over that were made before this server was there. Reads the table twice: first to
 * see whether every row fits, then to write, a thousand rows a transaction. Whatever stands there
 * already is left as it is, so the same table may be read again and again.
 *
 * @param wanted.open reads the table from its beginning each time
 */
export async function importInstances(
  { db, keyring, actor }: KeyedActor,
  wanted: {
    product: string;
    open: () => AsyncIterable<TableRecord>;
    dryRun: boolean;
    skipBad: boolean;
  },
  now: () => Date = () => new Date(),
): Promise<ImportOutcome> {
  const product = await findProduct(db, wanted.product);
  if (!product) {
    const products = await readProducts(db);
    return { kind: 'unknown-product', known: products.map((each) => each.key) };
  }
  if (product.provisioner === 'postgres-schema') {
    return { kind: 'wrong-provisioner', provisioner: product.provisioner };
  }
  const scope = `product/${product.id}`;
  // Before the first transaction: the keyring has connections of its own.
  await keyring.dataKey(scope);

  const checked = await walk(false);
  if (typeof checked === 'string') return { kind: 'bad-header', problem: checked };
  const mayWrite = checked.misfits.length === 0 || wanted.skipBad;
  if (!mayWrite) return { kind: 'misfits', ...checked };
  if (wanted.dryRun) return { kind: 'checked', ...checked };
  if (checked.imported === 0) return { kind: 'imported', ...checked };
  const written = await walk(true);
  if (typeof written === 'string') return { kind: 'bad-header', problem: written };
  return { kind: 'imported', ...written };

  /** @returns what is wrong with the row of names */
  async function walk(writes: boolean): Promise<ImportCounts | string> {
    const counts: ImportCounts = {
      rows: 0,
      imported: 0,
      alreadyThere: 0,
      differing: [],
      misfits: [],
    };
    const seen = createSeen();
    let columns: ImportColumn[] | undefined;
    let batch: { line: number; row: ImportedRow }[] = [];
    for await (const { line, fields } of wanted.open()) {
      if (columns === undefined) {
        const header = readHeader(fields);
        if (typeof header === 'string') return header;
        columns = header;
        continue;
      }
      counts.rows += 1;
      const reading = readCells(columns, fields);
      const read = reading.ok ? readImportedRow(reading.cells, now()) : reading;
      if (!read.ok) {
        counts.misfits.push({ line, reason: read.reason });
        continue;
      }
      const earlier = seen.note(read.row, line);
      if (earlier !== undefined) {
        counts.misfits.push({ line, reason: earlier });
        continue;
      }
      batch.push({ line, row: read.row });
      if (batch.length >= batchSize) {
        await takeBatch(batch, counts, writes);
        batch = [];
      }
    }
    if (columns === undefined) return 'the file is empty';
    if (batch.length > 0) await takeBatch(batch, counts, writes);
    // Those of the database were found batch by batch, behind those of the same batch's rows.
    counts.misfits.sort((a, b) => a.line - b.line);
    return counts;
  }

  async function takeBatch(
    batch: readonly { line: number; row: ImportedRow }[],
    counts: ImportCounts,
    writes: boolean,
  ): Promise<void> {
    const rows = batch.map(({ row }) => row);
    const fresh = await judge(batch, await readStanding(rows), counts);
    if (!writes || fresh.length === 0) {
      counts.imported += fresh.length;
      return;
    }
    const ids = await drawInstanceIds(db.pool, fresh.length);
    const sealed = await Promise.all(
      fresh.map(async ({ line, row }, place) => {
        const id = ids[place] ?? 0;
        const accessEnc =
          row.access === null
            ? null
            : await keyring.seal(scope, JSON.stringify(row.access), `instances/access_enc/${id}`);
        return { line, row, id, accessEnc };
      }),
    );
    const written = await db.transaction(async (tx) => {
      const made = await insertImportedInstances(
        tx,
        product?.id ?? 0,
        sealed.map(({ row, id, accessEnc }) => ({ ...row, id, accessEnc })),
      );
      if (made.size > 0) {
        await writeAudit(tx, {
          actor,
          act: 'instances.imported',
          subject: `product/${wanted.product}`,
          detail: { instances: made.size, fromLine: batch[0]?.line, toLine: batch.at(-1)?.line },
        });
      }
      return made;
    });
    counts.imported += written.size;
    // The marketplace, or another import, was quicker.
    const late = sealed.filter(({ id }) => !written.has(id));
    if (late.length > 0) await judge(late, await readStanding(late.map(({ row }) => row)), counts);
  }

  function readStanding(rows: readonly ImportedRow[]): Promise<StandingInstance[]> {
    return readStandingInstances(db.pool, product?.id ?? 0, rows);
  }

  /** Compares with what stands there, and counts. @returns the rows that stand for nothing yet */
  async function judge(
    batch: readonly { line: number; row: ImportedRow }[],
    standing: readonly StandingInstance[],
    counts: ImportCounts,
  ): Promise<{ line: number; row: ImportedRow }[]> {
    const byOrder = new Map(standing.map((each) => [each.orderKey, each]));
    const byId = new Map(standing.map((each) => [each.publicId, each]));
    const fresh: { line: number; row: ImportedRow }[] = [];
    for (const { line, row } of batch) {
      const sameOrder = byOrder.get(row.orderKey);
      const sameId = byId.get(row.publicId);
      if (sameOrder === undefined && sameId === undefined) {
        fresh.push({ line, row });
      } else if (sameOrder === undefined) {
        counts.misfits.push({ line, reason: 'instance_id stands for another order already' });
      } else if (sameOrder.publicId !== row.publicId) {
        counts.misfits.push({ line, reason: 'the order has another instance_id already' });
      } else {
        const columns = await findDifferences(row, sameOrder);
        if (columns.length === 0) counts.alreadyThere += 1;
        else counts.differing.push({ line, columns });
      }
    }
    return fresh;
  }

  async function findDifferences(row: ImportedRow, stands: StandingInstance): Promise<string[]> {
    const known = new Set(stands.dedupKeys);
    const plans = [row.plan, stands.plan].map((plan) =>
      JSON.stringify([plan?.productId ?? null, plan?.skuCode ?? null, plan?.quantity ?? null]),
    );
    return [
      ...(row.state === stands.state ? [] : ['state']),
      ...(row.expiresAt?.getTime() === stands.expiresAt?.getTime() ? [] : ['expires_at']),
      ...(plans[0] === plans[1] ? [] : ['product_id, sku_code or quantity']),
      ...((await isSameAccess(row, stands)) ? [] : ['access data']),
      ...(row.events.every(({ kind, dedupKey }) => kind !== 'imported' || known.has(dedupKey))
        ? []
        : ['applied_orders']),
    ];
  }

  async function isSameAccess(row: ImportedRow, stands: StandingInstance): Promise<boolean> {
    if (row.access === null || stands.accessEnc === null) {
      return row.access === null && stands.accessEnc === null;
    }
    const place = `instances/access_enc/${stands.id}`;
    const opened = await keyring.open(stands.accessEnc, place);
    const access = accessDataSchema.safeParse(JSON.parse(opened.toString('utf8')));
    const asText = ({ frontEndUrl, adminUrl, userName, password, memo }: typeof row.access) =>
      JSON.stringify([frontEndUrl, adminUrl, userName, password, memo]);
    return access.success && asText(access.data) === asText(row.access);
  }
}

/** @returns the columns in the file's order, or what is wrong with them */
function readHeader(fields: readonly string[]): ImportColumn[] | string {
  const names = fields.map((name) => name.trim().toLowerCase());
  const columns: ImportColumn[] = [];
  for (const name of names) {
    const column = importColumns.find((each) => each === name);
    // A misspelt column would be left out in silence.
    if (column === undefined) {
      return `the first line has a name that is no column; known are ${importColumns.join(', ')}`;
    }
    if (columns.includes(column)) return `the column ${column} stands in the first line twice`;
    columns.push(column);
  }
  const missing = importColumns.slice(0, 3).filter((column) => !columns.includes(column));
  return missing.length === 0 ? columns : `the first line has no ${missing.join(', ')}`;
}

type Cells = { ok: true; cells: Map<ImportColumn, string> } | { ok: false; reason: string };

function readCells(columns: readonly ImportColumn[], fields: readonly string[]): Cells {
  if (fields.length !== columns.length) {
    return { ok: false, reason: `has ${fields.length} fields, not ${columns.length}` };
  }
  return { ok: true, cells: new Map(columns.map((column, at) => [column, fields[at] ?? ''])) };
}

/**
 * Tells rows of one file that name the same thing. Keeps 53 bits of a digest of each, some fifty bytes,
 * and not the ids themselves.
 */
function createSeen() {
  const orders = new Map<number, number>();
  const ids = new Map<number, number>();
  return {
    /** @returns why the row does not fit */
    note(row: Pick<ImportedRow, 'orderKey' | 'publicId'>, line: number): string | undefined {
      const order = digest(row.orderKey);
      const id = digest(row.publicId);
      const sameOrder = orders.get(order);
      if (sameOrder !== undefined) return `the order stands on line ${sameOrder} already`;
      const sameId = ids.get(id);
      if (sameId !== undefined) return `instance_id stands on line ${sameId} already`;
      orders.set(order, line);
      ids.set(id, line);
      return undefined;
    },
  };
}

function digest(text: string): number {
  const bytes = createHash('sha256').update(text).digest();
  return bytes.readUIntBE(0, 6) * 32 + (bytes.readUInt8(6) & 31);
}

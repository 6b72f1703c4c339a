import { fold } from '../core/fold.ts';
import type { InstanceEvent, Plan } from '../core/events.ts';
import { stateAfter } from '../core/instance.ts';
import { wantedAfter } from '../core/wanted.ts';
import type { ImportedEvent, ImportedInstance } from '../db/import-instances.ts';
import {
  type RenewalScene,
  orderKeyOf,
  renewalKeyOf,
  renewalScenes,
  upgradeKeyOf,
} from '../protocol/saas-v2/callback.ts';
import { type AccessData, accessDataSchema } from '../protocol/saas-v2/reply.ts';
import { parseMarketplaceTime } from '../protocol/times.ts';

/** Every column that a file may have; the first three it must have. */
export const importColumns = [
  'instance_id',
  'order_id',
  'order_line_id',
  'product_id',
  'sku_code',
  'quantity',
  'charging_mode',
  'expires_at',
  'state',
  'front_end_url',
  'admin_url',
  'user_name',
  'password',
  'memo',
  'license',
  'applied_orders',
] as const;
export type ImportColumn = (typeof importColumns)[number];

/** What one row of the file says of an instance. */
export type ImportedRow = ImportedInstance & { access: AccessData | null };

/** A problem names a column and a rule, and repeats nothing of the row. */
export type RowReading = { ok: true; row: ImportedRow } | { ok: false; reason: string };

/** The marketplace's names in its order query, and those of `product add --charging`. */
const chargingModes = new Map([
  ['PERIOD', 'PERIOD'],
  ['ONE_TIME', 'ONE_TIME'],
  ['ON_DEMAND', 'ON_DEMAND'],
  ['ON_DEMAND_PKG', 'ON_DEMAND_PKG'],
  ['PAY_PER_USE', 'ON_DEMAND'],
  ['PACKAGE', 'ON_DEMAND_PKG'],
]);

const idLengthMax = 64;

class Misfit extends Error {}

/**
 * Reads one row as an instance that is as the row says: bought, delivered and acknowledged elsewhere.
 *
 * @param at when it is taken over: the time of acceptance of all its events
 */
export function readImportedRow(cells: ReadonlyMap<ImportColumn, string>, at: Date): RowReading {
  const cell = (column: ImportColumn): string => (cells.get(column) ?? '').trim();
  try {
    const publicId = readId(cell('instance_id'), 'instance_id');
    if (publicId.includes(',')) {
      throw new Misfit('instance_id has a comma, by which queries part their ids');
    }
    const orderId = readId(cell('order_id'), 'order_id');
    const orderLineId = readId(cell('order_line_id'), 'order_line_id');
    const state = readState(cell('state'));
    const chargingMode = readChargingMode(cell('charging_mode'));
    const expiresAt = readExpiry(cell('expires_at'), chargingMode, state);
    if (cell('license') !== '') {
      throw new Misfit('license belongs to licence products; this product speaks saas-v2');
    }
    // Not trimmed: a password may begin or end with a space.
    const access = state === 'released' ? null : readAccess(cells);
    const events = eventsOf({
      orderId,
      orderLineId,
      detail: {
        plan: readPlan(cell),
        ...(expiresAt === null ? {} : { expiresAt: expiresAt.toISOString() }),
        ...(chargingMode === null ? {} : { chargingMode }),
      },
      state,
      appliedOrders: readAppliedOrders(cell('applied_orders')),
    });
    const log = toLog(events, expiresAt, at);
    const folded = fold(log);
    return {
      ok: true,
      row: {
        publicId,
        orderId,
        orderLineId,
        orderKey: orderKeyOf({ orderId, orderLineId }),
        state: stateAfter(folded.desired),
        wanted: wantedAfter(log),
        statusChanges: state === 'frozen' ? 1 : 0,
        applied: folded.generation,
        expiresAt,
        plan: readPlan(cell),
        events,
        access,
      },
    };
  } catch (error) {
    if (error instanceof Misfit) return { ok: false, reason: error.message };
    throw error;
  }
}

type RowState = 'active' | 'frozen' | 'released';

function readId(text: string, column: ImportColumn): string {
  if (text === '') throw new Misfit(`${column} is empty`);
  if (text.length > idLengthMax) throw new Misfit(`${column} is longer than 64 characters`);
  if (hasControls(text)) throw new Misfit(`${column} has control characters`);
  return text;
}

function readState(text: string): RowState {
  const state = text.toLowerCase();
  if (state === '') return 'active';
  if (state === 'active' || state === 'frozen' || state === 'released') return state;
  throw new Misfit('state is none of active, frozen, released');
}

function readChargingMode(text: string): string | null {
  if (text === '') return null;
  const mode = chargingModes.get(text.toUpperCase().replaceAll('-', '_'));
  if (mode === undefined) {
    throw new Misfit(`charging_mode is none of PERIOD, ONE_TIME, ON_DEMAND, ON_DEMAND_PKG`);
  }
  return mode;
}

const isoTime = /^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:Z|[+-]\d{2}:?\d{2})$/;

function readExpiry(text: string, chargingMode: string | null, state: RowState): Date | null {
  if (text === '') {
    if (chargingMode === 'PERIOD' && state !== 'released') {
      throw new Misfit('expires_at is empty, and charging_mode is PERIOD');
    }
    return null;
  }
  const fromDigits = parseMarketplaceTime(text);
  if (fromDigits) return fromDigits;
  const date = isoTime.test(text) ? new Date(text.replace(' ', 'T')) : undefined;
  if (date === undefined || Number.isNaN(date.getTime())) {
    throw new Misfit(
      'expires_at is neither UTC digits (yyyyMMddHHmmss) nor ISO 8601 with its offset from UTC',
    );
  }
  return date;
}

function readPlan(cell: (column: ImportColumn) => string): Plan | null {
  const optionalId = (column: 'product_id' | 'sku_code') =>
    cell(column) === '' ? null : readId(cell(column), column);
  const quantity = cell('quantity');
  if (quantity !== '' && !/^\d{1,12}(?:\.\d{1,4})?$/.test(quantity)) {
    throw new Misfit('quantity is not a number of at most 12 digits and 4 decimals');
  }
  const plan: Plan = {
    productId: optionalId('product_id'),
    skuCode: optionalId('sku_code'),
    quantity: quantity === '' ? null : Number(quantity),
    period: null,
  };
  const isEmpty = plan.productId === null && plan.skuCode === null && plan.quantity === null;
  return isEmpty ? null : plan;
}

function readAccess(cells: ReadonlyMap<ImportColumn, string>): AccessData {
  const columns = {
    frontEndUrl: 'front_end_url',
    adminUrl: 'admin_url',
    userName: 'user_name',
    password: 'password',
    memo: 'memo',
  } as const;
  if ((cells.get('front_end_url') ?? '').trim() === '') {
    throw new Misfit('front_end_url is empty, and the instance is not released');
  }
  const fields = Object.entries(columns).map(([field, column]) => [field, cells.get(column) ?? '']);
  if (fields.some(([, text]) => text?.includes('\0'))) {
    throw new Misfit('the access data has a NUL character');
  }
  const parsed = accessDataSchema.safeParse(Object.fromEntries(fields));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const field = String(issue?.path[0] ?? '') as keyof typeof columns;
  throw new Misfit(`${columns[field] ?? 'the access data'} is ${issue?.message ?? 'unusable'}`);
}

type AppliedOrder = { orderId: string; orderLineId: string; dedupKey: string };

/** `RENEWAL:CS1/CS1-000001 UPGRADE:CS2/CS2-000001`: what must not be applied once more. */
function readAppliedOrders(text: string): AppliedOrder[] {
  const form = 'applied_orders is not a list of scene:orderId/orderLineId with spaces between';
  const orders = new Map<string, AppliedOrder>();
  for (const one of text.split(/\s+/).filter((part) => part !== '')) {
    const colon = one.indexOf(':');
    const scene = one.slice(0, Math.max(0, colon)).toUpperCase();
    const [orderId = '', orderLineId = '', ...more] = one.slice(colon + 1).split('/');
    if (colon < 1 || more.length > 0) throw new Misfit(form);
    if (orderId === '' || orderLineId === '') throw new Misfit(form);
    if (orderId.length > idLengthMax || orderLineId.length > idLengthMax) {
      throw new Misfit('applied_orders has an id longer than 64 characters');
    }
    const line = { orderId, orderLineId };
    const dedupKey =
      scene === 'UPGRADE' ? upgradeKeyOf(line) : renewalKeyOf({ ...line, scene: readScene(scene) });
    orders.set(dedupKey, { ...line, dedupKey });
  }
  return [...orders.values()];
}

function readScene(text: string): RenewalScene {
  const scene = renewalScenes.find((each) => each === text);
  if (scene === undefined) {
    throw new Misfit(
      `applied_orders has a scene that is none of ${renewalScenes.join(', ')}, UPGRADE`,
    );
  }
  return scene;
}

/** The log of an instance that was made elsewhere: everything known and applied. */
function eventsOf(of: {
  orderId: string;
  orderLineId: string;
  detail: ImportedEvent['detail'];
  state: RowState;
  appliedOrders: readonly AppliedOrder[];
}): ImportedEvent[] {
  const plain = { orderId: null, orderLineId: null, detail: {} };
  const { orderId, orderLineId, detail } = of;
  return [
    { kind: 'created', dedupKey: 'created', orderId, orderLineId, detail },
    ...of.appliedOrders.map((order) => ({ kind: 'imported' as const, ...order, detail: {} })),
    ...(of.state === 'frozen' ? [{ kind: 'frozen' as const, dedupKey: 'status/1', ...plain }] : []),
    ...(of.state === 'released'
      ? [{ kind: 'released' as const, dedupKey: 'released', ...plain }]
      : []),
  ];
}

function toLog(events: readonly ImportedEvent[], expiresAt: Date | null, at: Date) {
  return events.map((event, place): InstanceEvent => {
    const { kind, orderId, orderLineId } = event;
    const known = { acceptedAt: at, resolvedAt: at, appliedAt: at };
    const base = { id: place + 1, orderId, orderLineId, ...known };
    return kind === 'created'
      ? { ...base, kind, plan: event.detail.plan ?? null, trial: null, expiresAt }
      : { ...base, kind };
  });
}

function hasControls(text: string): boolean {
  return /\p{Cc}/u.test(text);
}

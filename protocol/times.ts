/**
 * The marketplace writes UTC times as digits alone: `yyyyMMddHHmmss`, and with milliseconds
 * `yyyyMMddHHmmssSSS` (its own table says 14 digits where its example has 17).
 */

const marketplaceTime = /^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})(\d{3})?$/;

/**
 * Reads 14 or 17 digits as UTC; undefined for anything else, and for times that no calendar has
 * (month 13, February 30, hour 24, year 0).
 */
export function parseMarketplaceTime(text: string): Date | undefined {
  const parts = marketplaceTime.exec(text);
  if (!parts) return undefined;
  const [, year, month, day, hour, minute, second, millisecond = '000'] = parts;
  // PostgreSQL knows no year 0.
  if (year === '0000') return undefined;
  const iso = `${year}-${month}-${day}T${hour}:${minute}:${second}.${millisecond}Z`;
  const date = new Date(iso);
  // Date rolls February 30 over into March, so only the way back proves the date real.
  return !Number.isNaN(date.getTime()) && date.toISOString() === iso ? date : undefined;
}

/**
 * Writes a date as 14 or 17 UTC digits; 14 cut the milliseconds off.
 * Throws RangeError for an invalid date or a year outside 1 to 9999.
 */
export function formatMarketplaceTime(date: Date, digits: 14 | 17): string {
  const text = date.toISOString().replace(/[^\d]/g, '');
  const year = date.getUTCFullYear();
  if (year < 1 || year > 9999) throw new RangeError('a marketplace time has a year of four digits');
  return text.slice(0, digits);
}

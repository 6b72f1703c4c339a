/** What the seller may answer the marketplace: every code of the protocol's table, with the words sent beside it. */
export const resultMessages = {
  '000000': 'success',
  '000001': 'authentication failed',
  '000002': 'request parameter invalid',
  '000003': 'instance id does not exist',
  '000004': 'request in process',
  '000005': 'other internal error',
  '000100': 'no instance resource to allot',
  '000101': 'mobile number is empty or already used',
  '000102': 'e-mail address is empty or already used',
  '000103': 'product may not be bought twice',
  '000104': 'internal error of this product',
  '000105': 'account has already got the benefit',
  '000106': 'sold out',
  '000107': 'mail domain is already used',
} as const;

export type ResultCode = keyof typeof resultMessages;

/** The codes by which a seller refuses a purchase for good: 0001xx. */
export type CreateRefusalCode = Extract<ResultCode, `0001${string}`>;

/** True for the 0001xx codes of the table; any other text, also an unlisted 0001xx, is not one. */
export function isCreateRefusalCode(code: string): code is CreateRefusalCode {
  return code.startsWith('0001') && Object.hasOwn(resultMessages, code);
}

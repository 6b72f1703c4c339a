/** What a key of a seller's program may do, each for its own product alone. */
export const apiScopes = [
  'instances:read',
  'orders:read',
  'instances:complete',
  'access:read',
  'dead-letters:read',
  'dead-letters:write',
] as const;
export type ApiScope = (typeof apiScopes)[number];

export function isApiScope(text: string): text is ApiScope {
  return apiScopes.some((each) => each === text);
}

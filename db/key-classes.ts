/**
 * The marketplace binds one key to each class of interface; `general` is that of order notices.
 * `open-api` is the other way round: with it we sign our calls to the marketplace.
 */
export const keyClasses = ['base', 'kit', 'license', 'general', 'open-api'] as const;
export type KeyClass = (typeof keyClasses)[number];

/** The marketplace binds one key to each class of interface; `general` is that of order notices. */
export const keyClasses = ['base', 'kit', 'license', 'general'] as const;
export type KeyClass = (typeof keyClasses)[number];

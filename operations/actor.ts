import type { Database } from '../db/client.ts';
import type { Keyring } from '../db/data-keys.ts';

/** Who does something, and on what; every verb takes it first. */
export type Actor = {
  /** `cli:{user of the system}`, or the name of an operator. */
  actor: string;
  db: Database;
};

/** The same for verbs that seal or open secrets. */
export type KeyedActor = Actor & { keyring: Keyring };

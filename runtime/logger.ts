import { destination as openDestination, pino, stdTimeFunctions } from 'pino';
import type { Bindings, ChildLoggerOptions, DestinationStream, Logger } from 'pino';

export type { Logger } from 'pino';

// Redaction is the second line of defence; the first is that nobody logs a secret. The names are
// those that secrets and personal data have here and on the marketplace's wire, in lower case and
// without - and _.
const HIDDEN: ReadonlySet<string> = new Set([
  'password',
  'newpassword',
  'secret',
  'secretkey',
  'accesskey',
  'masterkey',
  'key',
  'token',
  'authtoken',
  'authorization',
  'cookie',
  'setcookie',
  'access',
  'appinfo',
  'license',
  'licensecode',
  'signature',
  'webhooksignature',
  'body',
  'query',
  'buyer',
  'customerid',
  'customername',
  'userid',
  'username',
  'mobilephone',
  'mobile',
  'phone',
  'email',
  'address',
  'databaseurl',
  'tenantsurl',
  'redisurl',
]);

const DEPTH_MAX = 2;

// Not pino's `redact`: with this many paths it took 50 µs a line, this takes one.
function redact(fields: object, depth = 0): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (HIDDEN.has(name.toLowerCase().replace(/[-_]/g, ''))) kept[name] = '[hidden]';
    else if (value instanceof Error) kept[name] = describeError(value);
    else if (typeof value === 'object' && value !== null && depth < DEPTH_MAX)
      kept[name] = Array.isArray(value)
        ? value.map((v: unknown) => (isPlain(v) ? redact(v, depth + 1) : v))
        : isPlain(value)
          ? redact(value, depth + 1)
          : value;
    else kept[name] = value;
  }
  return kept;
}

function isPlain(value: unknown): value is object {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

type MakesChildren = {
  child(this: Logger, bindings: Bindings, options: ChildLoggerOptions | undefined): Logger;
};

/**
 * A logger that writes one flat JSON object a line, with ISO times and the process's role.
 * Secrets and personal data are hidden by field name down to two levels; errors are reduced by
 * `describeError`. Writes do not block and are flushed at exit; `destination` is for tests.
 */
export function createLogger(options: {
  level: string;
  role: string;
  destination?: DestinationStream;
}): Logger {
  const logger = pino(
    {
      level: options.level,
      base: { role: options.role, pid: process.pid },
      timestamp: stdTimeFunctions.isoTime,
      formatters: {
        level: (label) => ({ level: label }),
        log: (fields) => redact(fields),
      },
      // `redact` has described it already; pino's own serializer would add every field again.
      serializers: { err: (described: unknown) => described },
    },
    options.destination ??
      openDestination({
        dest: 1,
        sync: false,
        // A write a line would cost as much as the rest of a callback; a killed process loses this much.
        minLength: 4_096,
        periodicFlush: 100,
      }),
  );
  // pino formats the fields of a line, but not those that a child brings to each of its lines.
  const prototype: MakesChildren = Object.getPrototypeOf(logger);
  return Object.assign(logger, {
    child(this: Logger, bindings: Bindings, childOptions?: ChildLoggerOptions): Logger {
      return prototype.child.call(this, redact(bindings), childOptions);
    },
  });
}

/** What the log keeps of an error. Never send it to a caller. */
export type DescribedError = {
  type: string;
  message: string;
  code?: string;
  stack?: string;
  cause?: DescribedError;
};

/** Hides the passwords of connection strings and the parameters of failed statements. */
export function maskSecrets(text: string): string {
  return (
    text
      // A password may hold an unencoded slash where only a driver reads the address.
      .replace(/((?:postgres|postgresql|rediss?):\/\/[^\s:@/"']*:)[^\s"']*@/gi, '$1***@')
      .replace(/([a-z][a-z0-9+]*:\/\/[^\s:@/"']*:)[^\s/"']*@/gi, '$1***@')
      .replace(/([?&](?:password|secret|token|authToken)=)[^&\s"']*/gi, '$1***')
      // drizzle puts every parameter of a failed statement into its message.
      .replace(/\nparams: [\s\S]*?(?=\n {4}at |$)/g, '\nparams: ***')
  );
}

/**
 * Reduces an error to type, message, code, stack and causes. Other fields are left out on purpose:
 * drivers and HTTP clients hang rows, parameters and whole requests on them.
 */
export function describeError(error: unknown, depth = 3): DescribedError {
  if (!(error instanceof Error)) return { type: typeof error, message: maskSecrets(String(error)) };
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const inner = error instanceof AggregateError ? error.errors[0] : error.cause;
  return {
    type: error.name,
    // An AggregateError of the net module has no message of its own.
    message: maskSecrets(error.message),
    ...(code === undefined ? {} : { code }),
    ...(error.stack === undefined ? {} : { stack: maskSecrets(error.stack) }),
    ...(inner === undefined || depth === 0 ? {} : { cause: describeError(inner, depth - 1) }),
  };
}

/** Where operators' pages are, as links and routes both need them. */
export const paths = {
  root: '/ops',
  login: '/ops/login',
  logout: '/ops/logout',
  controls: '/ops/controls',
  queues: '/ops/queues',
  stylesheet: '/ops/assets/latchkey.css',
} as const;

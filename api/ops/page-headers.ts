import type { MiddlewareHandler } from 'hono';
import { secureHeaders } from 'hono/secure-headers';

/**
 * Pages that load nothing from elsewhere, run no inline script, cannot be framed and post only to
 * us.
 *
 * @param hasBase Bull Board's page names its own base address
 */
export function createPageHeaders(options: {
  isHttps: boolean;
  hasBase: boolean;
}): MiddlewareHandler {
  const self = ["'self'"];
  return secureHeaders({
    contentSecurityPolicy: {
      defaultSrc: ["'none'"],
      scriptSrc: self,
      styleSrc: self,
      imgSrc: ["'self'", 'data:'],
      fontSrc: self,
      connectSrc: self,
      formAction: self,
      baseUri: options.hasBase ? self : ["'none'"],
      frameAncestors: ["'none'"],
    },
    xFrameOptions: 'DENY',
    referrerPolicy: 'same-origin',
    // Only behind TLS: a plain trial on localhost must not pin the browser to https.
    strictTransportSecurity: options.isHttps ? 'max-age=31536000' : false,
  });
}

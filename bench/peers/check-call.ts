import { refusal } from '../../protocol/saas-v2/reply.ts';
import type { Reply } from '../../protocol/saas-v2/reply.ts';
import {
  isWithinWindow,
  readSignatureParameters,
  verifySignature,
} from '../../protocol/saas-v2/signature.ts';

export type CheckedCall =
  | { ok: true; signedAt: Date; signature: Buffer }
  | { ok: false; reply: Reply };

/** The checks of the signature, the same code for every peer. */
export function checkCall(address: string, body: Buffer, accessKey: string): CheckedCall {
  const parameters = readSignatureParameters(address.slice(address.indexOf('?') + 1));
  if (!parameters.ok) return { ok: false, reply: refusal('000002', parameters.problem) };
  if (!isWithinWindow(parameters.signedAt, new Date())) {
    return { ok: false, reply: refusal('000002', 'the timestamp is too far away') };
  }
  const verified = verifySignature({ parameters, body, keys: [{ id: 1, secret: accessKey }] });
  if (!verified.verified) return { ok: false, reply: refusal('000001') };
  return { ok: true, signedAt: parameters.signedAt, signature: parameters.signatureBytes };
}

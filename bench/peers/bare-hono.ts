// What HTTP alone costs, the way Hono is written everywhere: verify, parse, the same signed reply,
// nothing stored.
import { Hono } from 'hono';
import { bodySignHeader } from '../../protocol/body-sign.ts';
import { parseCallback } from '../../protocol/saas-v2/callback.ts';
import { refusal, replyToOrder, serializeReply } from '../../protocol/saas-v2/reply.ts';
import type { Reply } from '../../protocol/saas-v2/reply.ts';
import { checkCall } from './check-call.ts';
import { readPeerProducts, servePeer } from './serve.ts';

const products = readPeerProducts();
const app = new Hono();

app.post('/callbacks/:productKey', async (c) => {
  const accessKey = products.get(c.req.param('productKey'));
  if (accessKey === undefined) return c.notFound();
  const body = Buffer.from(await c.req.arrayBuffer());
  const reply = answer(c.req.url, body, accessKey);
  const text = serializeReply(reply);
  return c.body(text, 200, {
    'Content-Type': 'application/json',
    'Body-Sign': bodySignHeader(accessKey, text),
  });
});

servePeer(app);

function answer(address: string, body: Buffer, accessKey: string): Reply {
  const checked = checkCall(address, body, accessKey);
  if (!checked.ok) return checked.reply;
  const parsed = parseCallback(body);
  if (!parsed.ok) return refusal('000002', parsed.problem);
  return parsed.callback.activity === 'newInstance'
    ? replyToOrder({ state: 'pending' }, parsed.callback.proposedId)
    : refusal('000002');
}

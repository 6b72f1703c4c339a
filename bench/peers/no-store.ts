// The receiver's own way with HTTP (Node's request and response under Hono's router), nothing
// stored, logged or counted: what is left to the store and to what is told about a call.
import type { HttpBindings } from '@hono/node-server';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import { Hono } from 'hono';
import { writeReply } from '../../api/receiver/answer.ts';
import { readBody } from '../../api/receiver/read-call.ts';
import { parseCallback } from '../../protocol/saas-v2/callback.ts';
import { refusal, replyToOrder } from '../../protocol/saas-v2/reply.ts';
import type { Reply } from '../../protocol/saas-v2/reply.ts';
import { checkCall } from './check-call.ts';
import { readPeerProducts, servePeer } from './serve.ts';

const products = readPeerProducts();
const app = new Hono<{ Bindings: HttpBindings }>();

app.all('/callbacks/:productKey', async (c) => {
  const { incoming, outgoing } = c.env;
  const accessKey = products.get(c.req.param('productKey'));
  if (accessKey === undefined) return c.notFound();
  const read = await readBody(incoming);
  const reply = read.ok ? answer(incoming.url ?? '', read.body, accessKey) : refusal('000002');
  writeReply(outgoing, reply, { secret: accessKey });
  return RESPONSE_ALREADY_SENT;
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

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { createFakeReceiver } from './fake-receiver.ts';

const run = promisify(execFile);
const main = fileURLToPath(new URL('../../simulator/main.ts', import.meta.url));

test('simulate buys from any address, and says in its exit code whether all went well', async () => {
  const receiver = await createFakeReceiver({});
  onTestFinished(() => receiver.close());
  const simulate = (...more: string[]): Promise<{ stdout: string }> =>
    run(process.execPath, ['--import', 'tsx', main, '--url', receiver.callbackUrl, ...more]);
  const { stdout } = await simulate('--key', receiver.accessKey, '--orders', '2', '--json');
  expect(JSON.parse(stdout)).toMatchObject({ ok: true, lines: [{ outcome: 'ready' }, {}] });
  await expect(simulate('--key', 'wrong', '--orders', '1', '--seconds', '1')).rejects.toMatchObject(
    { code: 1, stdout: expect.stringMatching(/000001[^]*0 of 1 ready: NOT/) },
  );
  await expect(simulate('--key', 'k', '--orders', 'some')).rejects.toMatchObject({
    stderr: expect.stringContaining('whole number'),
  });
}, 30_000);

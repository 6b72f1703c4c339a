#!/usr/bin/env node
// Plays the marketplace against any production address, for sellers who want to see theirs work:
//   simulate --url https://shop.example.com/callbacks/KEY --key ACCESS_KEY --orders 20
import { Command, InvalidArgumentError } from '@commander-js/extra-typings';
import { createMarketplace } from './marketplace.ts';
import { formatPurchases, playPurchases } from './purchases.ts';

const program = new Command('simulate')
  .description('Buys from a production interface (SaaS V2.0) as the marketplace does')
  .requiredOption('--url <url>', 'production address', readUrl)
  .requiredOption('--key <key>', 'access key that is bound to the address')
  .option('--orders <count>', 'how many orders to buy', readCount, 10)
  .option('--seconds <seconds>', 'how long to wait for each order', readCount, 60)
  .option('--json', 'print the result as JSON alone', false);

const { url, key, orders, seconds, json } = program.parse().opts();
const market = createMarketplace({ callbackUrl: url, accessKey: key });
const result = await playPurchases(market, {
  orders,
  timing: { retryEveryMs: 250, deadlineMs: seconds * 1000 },
  clock: Date.now,
});
market.close();
process.stdout.write(json ? `${JSON.stringify(result)}\n` : formatPurchases(result));
process.exitCode = result.ok ? 0 : 1;

function readUrl(text: string): string {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) {
    throw new InvalidArgumentError('It must be an http or https address.');
  }
  return text;
}

function readCount(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1) {
    throw new InvalidArgumentError('It must be a whole number from 1 up.');
  }
  return count;
}

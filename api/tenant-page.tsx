import { Hono } from 'hono';
import { etag } from 'hono/etag';
import { createPageHeaders } from './ops/page-headers.ts';
import { renderPage } from './ops/page.tsx';
import { stylesheet } from './ops/styles.ts';
import type { Words } from './ops/words.ts';

/** Where tenants connect, as buyers reach it. */
export type TenantServer = { host: string; port: number; database: string };

const stylesheetPath = '/tenants/assets/latchkey.css';

/**
 * GET /tenants/:instanceId, where a buyer of a postgres-schema tenant goes by default: how to
 * connect with what the order's details show. The same page for every id, so that nobody learns
 * which ids exist.
 */
export function createTenantPage(options: { server: TenantServer; isHttps: boolean }): Hono {
  const { server, isHttps } = options;
  const app = new Hono();
  app.use('/tenants/*', createPageHeaders({ isHttps, hasBase: false }));
  app.get(stylesheetPath, etag(), (c) =>
    c.body(stylesheet, 200, {
      'content-type': 'text/css; charset=utf-8',
      'cache-control': 'no-cache',
    }),
  );
  app.get('/tenants/:instanceId', (c) => {
    c.header('cache-control', 'no-store');
    return renderPage(c, stylesheetPath, (words) => describe(words, server));
  });
  return app;
}

function describe({ tenant }: Words, { host, port, database }: TenantServer) {
  return {
    heading: tenant.heading,
    content: () => (
      <>
        <p>{tenant.lead}</p>
        <table>
          <tbody>
            <Row name={tenant.host} value={host} />
            <Row name={tenant.port} value={String(port)} />
            <Row name={tenant.database} value={database} />
            <tr>
              <th scope="row">{tenant.user}</th>
              <td class="soft">{tenant.fromOrder}</td>
            </tr>
            <tr>
              <th scope="row">{tenant.password}</th>
              <td class="soft">{tenant.fromOrder}</td>
            </tr>
          </tbody>
        </table>
        <h2>{tenant.stepsHeading}</h2>
        <ol>
          {tenant.steps.map((step) => (
            <li>{step}</li>
          ))}
        </ol>
        <h2>{tenant.shellHeading}</h2>
        <pre>{`psql "host=${host} port=${port} dbname=${database} user=USER"`}</pre>
        <p class="soft">{tenant.shellAfter}</p>
        <p class="soft">{tenant.keep}</p>
      </>
    ),
  };
}

function Row({ name, value }: { name: string; value: string }) {
  return (
    <tr>
      <th scope="row">{name}</th>
      <td>
        <code>{value}</code>
      </td>
    </tr>
  );
}

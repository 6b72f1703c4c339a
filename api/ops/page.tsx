import type { Context } from 'hono';
import { html } from 'hono/html';
import type { Child } from 'hono/jsx';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { type Language, chooseLanguage, languageTags } from './language.ts';
import { type Words, words } from './words.ts';

export type Page = {
  heading: string;
  narrow?: boolean;
  content: (words: Words) => Child;
};

function languageOf(c: Context): Language {
  return chooseLanguage(c.req.query('lang'), c.req.header('accept-language'));
}

/**
 * Answers with one of our own pages in the reader's language.
 *
 * @param stylesheet where this part of the server serves it
 */
export function renderPage(
  c: Context,
  stylesheet: string,
  page: (words: Words) => Page,
  status: ContentfulStatusCode = 200,
): Response | Promise<Response> {
  const language = languageOf(c);
  const { heading, narrow, content } = page(words[language]);
  c.header('content-language', languageTags[language]);
  c.header('vary', 'accept-language', { append: true });
  const document = (
    <html lang={languageTags[language]}>
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="robots" content="noindex" />
        <title>{`${heading} · ${words[language].title}`}</title>
        <link rel="icon" href="data:," />
        <link rel="stylesheet" href={stylesheet} />
      </head>
      <body>
        <main class={narrow === true ? 'narrow' : ''}>
          <p class="brand">{words[language].title}</p>
          <h1>{heading}</h1>
          {content(words[language])}
        </main>
        <LanguageLinks language={language} />
      </body>
    </html>
  );
  return c.html(html`<!doctype html>${document}`, status);
}

/** The other language; each named in its own. */
function LanguageLinks({ language }: { language: Language }) {
  const other = language === 'en' ? 'zh' : 'en';
  return (
    <footer>
      <a href={`?lang=${other}`} lang={languageTags[other]} hreflang={languageTags[other]}>
        {words[language].language[other]}
      </a>
    </footer>
  );
}

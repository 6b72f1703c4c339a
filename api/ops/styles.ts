/** The look of all our own pages: no font, image or script from elsewhere. */
export const stylesheet = `
:root {
  color-scheme: light dark;
  --ground: light-dark(#f6f7f9, #14171c);
  --card: light-dark(#ffffff, #1b1f26);
  --text: light-dark(#1d232c, #e6e9ee);
  --soft: light-dark(#5b6675, #9aa5b4);
  --line: light-dark(#dde2e8, #2f3641);
  --accent: light-dark(#1f5f8b, #7db7de);
  --on-accent: light-dark(#ffffff, #10202c);
  --warn-ground: light-dark(#fdf3e4, #33280f);
  --warn: light-dark(#7a4d05, #f0c674);
}
* { box-sizing: border-box; }
body {
  margin: 0;
  min-height: 100vh;
  padding: 2rem 1rem;
  display: flex;
  flex-direction: column;
  align-items: center;
  gap: 1.25rem;
  background: var(--ground);
  color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", "PingFang SC", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif;
}
main {
  width: 100%;
  max-width: 40rem;
  padding: 2rem;
  background: var(--card);
  border: 1px solid var(--line);
  border-radius: .75rem;
}
main.narrow { max-width: 24rem; margin-top: 10vh; }
.brand { margin: 0 0 .25rem; color: var(--soft); font-size: .875rem; letter-spacing: .04em; }
h1 { margin: 0 0 1rem; font-size: 1.375rem; line-height: 1.3; font-weight: 600; }
h2 { margin: 1.75rem 0 .5rem; font-size: 1rem; font-weight: 600; }
p { margin: 0 0 1rem; }
p.soft, .soft { color: var(--soft); font-size: .9375rem; }
p.note {
  padding: .625rem .875rem;
  border-radius: .5rem;
  background: var(--warn-ground);
  color: var(--warn);
  font-size: .9375rem;
}
form { margin: 0; }
label { display: block; margin: 0 0 .25rem; font-size: .9375rem; font-weight: 500; }
input {
  width: 100%;
  margin: 0 0 1rem;
  padding: .5rem .75rem;
  border: 1px solid var(--line);
  border-radius: .5rem;
  background: var(--ground);
  color: inherit;
  font: inherit;
}
button {
  padding: .5rem 1rem;
  border: 1px solid transparent;
  border-radius: .5rem;
  background: var(--accent);
  color: var(--on-accent);
  font: inherit;
  font-weight: 500;
  cursor: pointer;
}
button.wide { width: 100%; }
button.quiet { border-color: var(--line); background: transparent; color: var(--text); }
input:focus-visible, button:focus-visible, a:focus-visible {
  outline: 2px solid var(--accent);
  outline-offset: 2px;
}
a { color: var(--accent); }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .625rem .5rem .625rem 0; border-bottom: 1px solid var(--line); text-align: left; overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--soft); }
td.end, th.end { padding-right: 0; text-align: right; }
code, pre { font: .9375rem/1.5 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; }
pre {
  margin: 0 0 .75rem;
  padding: .75rem .875rem;
  border: 1px solid var(--line);
  border-radius: .5rem;
  background: var(--ground);
  white-space: pre-wrap;
  overflow-wrap: anywhere;
}
ol { margin: 0; padding-left: 1.25rem; }
li { margin: .25rem 0; }
.bar { display: flex; flex-wrap: wrap; gap: .75rem; align-items: center; justify-content: space-between; margin-top: 1.5rem; }
footer { color: var(--soft); font-size: .875rem; }
footer a { color: inherit; }
`;

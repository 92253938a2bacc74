/** The look of every page: one card on calm ground, light and dark by the reader's own setting. */
export const style = `
:root {
  color-scheme: light dark;
  --ground: #eef1f0; --card: #ffffff; --line: #d8dedc; --ink: #17211f; --soft: #52605d;
  --accent: #0b6e63; --accent-ink: #ffffff; --accent-deep: #075249; --tint: #e3f1ee;
  --good: #0b6e63; --good-tint: #e0f2ee; --calm: #475a76; --calm-tint: #e8edf4; --bad: #a3341f; --bad-tint: #fbeae6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #101615; --card: #19211f; --line: #2f3b38; --ink: #e7eeec; --soft: #a4b3af;
    --accent: #5fd0bf; --accent-ink: #06231f; --accent-deep: #8be3d5; --tint: #1d2f2c;
    --good: #5fd0bf; --good-tint: #1b332f; --calm: #a9bddb; --calm-tint: #222c3a; --bad: #ff9d87; --bad-tint: #3b211c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; min-height: 100vh; min-height: 100svh; padding: 24px 16px; background: var(--ground); color: var(--ink);
  display: flex; flex-direction: column; align-items: center; justify-content: center; gap: 20px;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main {
  width: 100%; max-width: 480px; padding: 32px; background: var(--card); border: 1px solid var(--line);
  border-radius: 16px; box-shadow: 0 1px 2px rgb(0 0 0 / .05), 0 12px 32px rgb(0 0 0 / .06);
}
h1 { margin: 0 0 12px; font-size: 1.5rem; line-height: 1.25; letter-spacing: -.01em; text-wrap: balance; overflow-wrap: anywhere; }
h1 em { display: inline-block; max-width: 100%; color: var(--accent); font-style: normal; }
h2 { margin: 24px 0 8px; font-size: 1rem; overflow-wrap: anywhere; }
p { margin: 0 0 12px; overflow-wrap: anywhere; }
main > :last-child { margin-bottom: 0; }
a { color: var(--accent); text-underline-offset: 3px; }
.brand {
  display: flex; align-items: center; gap: 8px; margin: 0; color: var(--soft);
  font-size: .9375rem; font-weight: 600;
}
.brand svg { color: var(--accent); }
.soft { color: var(--soft); font-size: .9375rem; }
.badge {
  width: 48px; height: 48px; margin-bottom: 16px; border-radius: 50%; display: grid; place-items: center;
}
.good { color: var(--good); background: var(--good-tint); }
.calm { color: var(--calm); background: var(--calm-tint); }
.bad { color: var(--bad); background: var(--bad-tint); }
.can { margin: 0 0 20px; padding: 0; list-style: none; }
.can li { position: relative; padding: 4px 0 4px 28px; overflow-wrap: anywhere; }
.can li::before {
  content: ""; position: absolute; left: 5px; top: 11px; width: 11px; height: 6px;
  border: solid var(--accent); border-width: 0 0 2px 2px; transform: rotate(-45deg);
}
code { font: .9em ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.can code { color: var(--soft); }
.next { margin: 20px 0 16px; padding: 14px 16px; border-radius: 10px; background: var(--tint); }
.next h2 { margin: 0 0 4px; }
.next p:last-child { margin: 0; }
.said { margin: 16px 0; padding: 2px 0 2px 14px; border-left: 3px solid var(--line); color: var(--soft); font-size: .9375rem; }
.button {
  display: block; width: 100%; min-height: 48px; padding: 12px 20px; border: 1px solid transparent; border-radius: 10px;
  background: var(--accent); color: var(--accent-ink); font: inherit; font-weight: 600; text-align: center;
  text-decoration: none; cursor: pointer; overflow-wrap: anywhere;
}
.button:hover { background: var(--accent-deep); }
.button.quiet { background: transparent; border-color: var(--soft); color: var(--ink); }
.button.quiet:hover { background: var(--tint); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; }
.actions { display: grid; gap: 12px; margin: 20px 0 16px; }
.steps { margin: 16px 0 24px; padding: 0; list-style: none; counter-reset: step; }
.steps > li { position: relative; padding: 0 0 20px 44px; counter-increment: step; }
.steps > li:last-child { padding-bottom: 0; }
.steps > li::before {
  content: counter(step); position: absolute; left: 0; top: 0; width: 28px; height: 28px; border-radius: 50%;
  display: grid; place-items: center; background: var(--tint); color: var(--accent); font-size: .9375rem; font-weight: 700;
}
.user-code { margin: 12px 0; }
.user-code code { font-size: 1.75rem; font-weight: 700; letter-spacing: .08em; overflow-wrap: anywhere; }
label { display: block; margin-bottom: 8px; font-weight: 600; }
input[type="text"] {
  width: 100%; min-height: 48px; margin-bottom: 12px; padding: 10px 12px; border: 1px solid var(--soft); border-radius: 10px;
  background: var(--ground); color: var(--ink); font: inherit;
}
@media (max-width: 420px) { main { padding: 24px 20px; } }
@media (forced-colors: active) { .badge, .steps > li::before { border: 1px solid; } }
`;

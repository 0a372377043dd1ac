// Takes a picture of each rendered dashboard, and writes what a person sees in its panels.
//
//     node shoot.mjs DIRECTORY CHROMIUM NAME…
//
// DIRECTORY has render.js, render.css and NAME.json; NAME.png and NAME.seen.json are written, and
// NAME.top.png, the part above the first row, where the dashboard's `top` is true.

import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

const [directory, executablePath, ...names] = process.argv.slice(2);

/** Returns, for each panel, its items, its cut-off texts and the colours of its canvas. */
function look() {
  const cutOff = (element) => {
    const { overflowX, overflowY, textOverflow } = getComputedStyle(element);
    const hides = textOverflow === 'ellipsis' || overflowX === 'hidden' || overflowY === 'hidden';
    return hides && element.textContent.trim() && element.scrollWidth > element.clientWidth + 1;
  };
  return [...document.querySelectorAll('[data-panel]')].map((panel) => {
    const box = panel.getBoundingClientRect();
    const colors = {};
    for (const canvas of panel.querySelectorAll('canvas')) {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      for (let at = 0; at < data.length; at += 4) {
        if (data[at + 3] > 200) {
          const color = `#${[0, 1, 2].map((part) => data[at + part].toString(16).padStart(2, '0')).join('')}`;
          colors[color] = (colors[color] ?? 0) + 1;
        }
      }
    }
    return {
      title: panel.dataset.panel,
      kind: panel.dataset.kind,
      box: [box.left, box.top, box.right, box.bottom],
      items: [...panel.querySelectorAll('[data-item]')].map((item) => {
        const colored = [...item.querySelectorAll('*')];
        return {
          ...item.dataset,
          text: item.innerText,
          backgrounds: colored.map((element) => getComputedStyle(element).background).filter((color) => !color.startsWith('rgba(0, 0, 0, 0)')),
          texts: colored.map((element) => getComputedStyle(element).color),
        };
      }),
      text: panel.innerText,
      cells: [...panel.querySelectorAll('[role=gridcell]')].map((cell) => ({
        text: cell.innerText,
        background: getComputedStyle(cell).backgroundColor,
        color: getComputedStyle(cell).color,
        links: [...cell.querySelectorAll('a')].map((link) => link.getAttribute('href')),
      })),
      cutOff: [...panel.querySelectorAll('*')].filter(cutOff).map((element) => element.textContent.slice(0, 80)),
      colors: Object.fromEntries(Object.entries(colors).sort((one, other) => other[1] - one[1]).slice(0, 12)),
    };
  });
}

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
for (const name of names) {
  const dashboard = readFileSync(`${directory}/${name}.json`, 'utf8');
  const { width, top } = JSON.parse(dashboard);
  const page = await browser.newPage({ viewport: { width, height: 900 } });
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  const file = `${directory}/${name}.html`;
  writeFileSync(
    file,
    `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="render.css"><body style="margin:0;background:#111217">
<div id="root"></div><script>window.dashboard=${dashboard.replaceAll('<', '\\u003c')};window.grafanaBootData={user:{},settings:{}}</script>
<script src="render.js"></script>`
  );
  await page.goto(pathToFileURL(file).href, { timeout: 120_000 });
  await page.waitForFunction(() => document.title === 'rendered');
  const height = await page.evaluate(() => document.querySelector('#root > div').offsetHeight);
  await page.setViewportSize({ width, height });
  await page.waitForFunction(
    () => [...document.querySelectorAll('[data-panel]')].every(
      (panel) => panel.dataset.kind === 'row' || panel.querySelector('[data-item]')
    ),
    undefined,
    { timeout: 120_000 }
  ).catch((error) => errors.push(String(error)));
  await page.evaluate(() => document.fonts.ready);
  // Canvases are drawn in the next frame.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  await page.screenshot({ path: `${directory}/${name}.png` });
  if (top) {
    const end = await page.evaluate(() => document.querySelector('[data-kind=row]').getBoundingClientRect().top);
    await page.screenshot({ path: `${directory}/${name}.top.png`, clip: { x: 0, y: 0, width, height: end } });
  }
  writeFileSync(`${directory}/${name}.seen.json`, JSON.stringify({ errors, panels: await page.evaluate(look) }));
  await page.close();
}
await browser.close();

// Measures the faults in the layout of a page: see layout.py.
([most, gap, least]) => {
  const found = [];
  const name = (element) => `${element.tagName.toLowerCase()}.${[...element.classList].join(".")}`;
  const style = (element) => getComputedStyle(element);
  const ancestors = (element) => { const all = []; for (let e = element; e && e !== document.body; e = e.parentElement) all.push(e); return all; };
  const hidden = (element) => element.closest(".sr, .skip, dialog:not([open]), noscript, datalist, script") || !element.checkVisibility({ visibilityProperty: true });
  const words = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.data.trim() || hidden(node.parentElement)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 1 && box.height > 1) words.push({ node, box });
  }

  // Nothing is wider than the window.
  const root = document.scrollingElement;
  if (root.scrollWidth > root.clientWidth) found.push(`the page is ${root.scrollWidth - root.clientWidth} px too wide`);

  // A table stays inside of its card: it scrolls there, and a shadow shows that it does.
  for (const table of document.querySelectorAll("main table")) {
    const card = table.closest(".card");
    if (!card || hidden(table)) continue;
    const scroll = ancestors(table).find((e) => ["auto", "scroll"].includes(style(e).overflowX));
    const right = Math.min(...ancestors(table).filter((e) => card.contains(e) && style(e).overflowX !== "visible").map((e) => e.getBoundingClientRect().right), table.getBoundingClientRect().right);
    if (right > card.getBoundingClientRect().right + 1) found.push(`${name(table)} runs out of its card`);
    if (scroll && scroll.scrollWidth > scroll.clientWidth + 1 && style(scroll).backgroundImage === "none") found.push(`nothing shows that ${name(scroll)} scrolls`);
    const columns = [];
    for (const row of table.rows) {
      if (style(row).display !== "table-row" || [...row.cells].some((cell) => cell.colSpan > 1)) continue;
      for (const [place, cell] of [...row.cells].entries()) {
        const boxes = [...words.filter((word) => cell.contains(word.node)).map((word) => word.box), ...[...cell.querySelectorAll("svg, input, button")].map((e) => e.getBoundingClientRect())];
        const column = (columns[place] ??= { left: Infinity, right: -Infinity });
        for (const box of boxes) { column.left = Math.min(column.left, box.left); column.right = Math.max(column.right, box.right); }
      }
    }
    const filled = columns.filter((column) => column && column.right > column.left);
    filled.forEach((column, place) => {
      const before = filled[place - 1];
      const empty = before ? (column.left - before.right) / table.getBoundingClientRect().width : 0;
      if (empty > gap) found.push(`${Math.round(100 * empty)} % of ${name(table)} is empty before column ${place + 1}`);
    });
  }

  // No text is cut without an ellipsis.
  for (const { node, box } of words) {
    for (const element of ancestors(node.parentElement)) {
      const { overflowX, overflowY, textOverflow, webkitLineClamp } = style(element);
      if (["auto", "scroll"].includes(overflowX) || ["auto", "scroll"].includes(overflowY)) break;
      if (textOverflow === "ellipsis" || webkitLineClamp !== "none") break;
      const frame = element.getBoundingClientRect();
      const cut = (["hidden", "clip"].includes(overflowX) && box.right > frame.right + 1) || (["hidden", "clip"].includes(overflowY) && box.bottom > frame.bottom + 2);
      if (cut) { found.push(`${JSON.stringify(node.data.trim().slice(0, 40))} is cut in ${name(element)}`); break; }
    }
  }

  // Words stand out from what is behind them.
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1); return [...paint.getImageData(0, 0, 1, 1).data]; };
  const light = (color) => { const [r, g, b] = rgba(color).map((value) => { const part = value / 255; return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (element) => { const under = [...ancestors(element), document.body, document.documentElement].find((e) => rgba(style(e).backgroundColor)[3] === 255); return style(under ?? document.documentElement).backgroundColor; };
  for (const element of new Set(words.map(({ node }) => node.parentElement))) {
    const [one, other] = [light(style(element).color), light(ground(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < least && !element.closest(".off, [aria-hidden=true]")) found.push(`${JSON.stringify(element.textContent.trim().slice(0, 40))} has a contrast of ${contrast.toFixed(1)}`);
  }

  // No large part of the page between its contents is empty.
  const main = document.querySelector("main"), frame = main.getBoundingClientRect(), size = 16;
  const inset = parseFloat(style(main).paddingLeft), left = frame.left + inset, width = frame.width - 2 * inset;
  const things = words.filter((word) => main.contains(word.node)).map((word) => word.box);
  for (const element of main.querySelectorAll("svg, img, input, select, textarea, button, td, th, .u-over")) if (!hidden(element)) things.push(element.getBoundingClientRect());
  const visible = things.map((box) => ({ left: box.left - 8, right: box.right + 8, top: box.top + scrollY - 8, bottom: box.bottom + scrollY + 8 }));
  const end = Math.max(...visible.map((box) => box.bottom)), begin = Math.min(...visible.map((box) => box.top));
  const columns = Math.floor(width / size), rows = Math.floor((Math.min(end, frame.bottom + scrollY) - begin) / size);
  const heights = new Array(columns).fill(0);
  let largest = 0, place = "";
  for (let row = 0; row < rows; row++) {
    const top = begin + row * size, filled = new Array(columns).fill(false);
    for (const box of visible) if (box.top < top + size && box.bottom > top) for (let at = Math.max(0, Math.floor((box.left - left) / size)); at < columns && left + at * size < box.right; at++) filled[at] = true;
    for (let at = 0; at < columns; at++) heights[at] = filled[at] ? 0 : heights[at] + 1;
    for (let at = 0; at < columns; at++) {
      let low = Infinity;
      for (let to = at; to < columns && heights[to]; to++) {
        low = Math.min(low, heights[to]);
        const area = low * (to - at + 1);
        if (area > largest) { largest = area; place = `${(to - at + 1) * size} × ${low * size} px at ${Math.round(left + at * size)}, ${Math.round(top - (low - 1) * size)}`; }
      }
    }
  }
  const share = (largest * size * size) / (innerWidth * innerHeight);
  if (share > most) found.push(`${Math.round(100 * share)} % of the window are empty: ${place}`);
  return [...new Set(found)];
}

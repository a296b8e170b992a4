// Everything works without this; with it, lists are live, keys work, and times are those of the reader.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  document.documentElement.classList.add("scripted");

  // --- times ---------------------------------------------------------------------------------------------------------
  const styles = {
    short: new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }),
    clock: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hour12: false }),
    second: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }),
    minute: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false }),
    day: new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" }),
    full: new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hour12: false }),
  };
  const ago = (seconds) => {
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]])
      if (seconds >= size || size === 1) return `${Math.floor(Math.max(0, seconds) / size)} ${unit} ago`;
  };
  const times = (root) => {
    for (const time of all("time[data-style]", root)) {
      const at = new Date(time.dateTime);
      const style = time.dataset.style;
      const text = style === "ago" ? ago((Date.now() - at) / 1000) : styles[style].format(at);
      if (time.textContent !== text) time.textContent = text;
      if (!time.dataset.titled) { time.dataset.titled = "1"; time.title = `${styles.full.format(at)} · ${time.dateTime}`; }
    }
  };
  setInterval(() => { if (!document.hidden) times(document); }, 10000);
  // Times in fields are those of the reader, too; addresses have them in UTC, which is meant where no zone is given.
  const zoned = /(Z|[+-]\d\d:?\d\d)$/i;
  const local = (at) => new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19).replace(/:00$/, "");
  for (const field of all("[data-time]")) {
    const at = new Date(zoned.test(field.value) ? field.value : `${field.value}Z`);
    if (field.value && !Number.isNaN(+at)) field.value = local(at);
  }

  // --- keys ----------------------------------------------------------------------------------------------------------
  const rows = () => all("[data-row]").filter((row) => row.offsetParent !== null);
  const target = (row) => (row.matches("a,button") ? row : one("a,button,summary", row));
  const step = (by) => {
    const list = rows();
    if (!list.length) return;
    const now = list.findIndex((row) => row.contains(document.activeElement));
    const next = list[now < 0 ? (by > 0 ? 0 : list.length - 1) : Math.max(0, Math.min(list.length - 1, now + by))];
    target(next)?.focus();
    next.scrollIntoView({ block: "nearest" });
  };
  const typing = (element) => element?.matches?.("input:not([type=checkbox]):not([type=radio]),textarea,select,[contenteditable]");
  const toggleKeys = () => { const dialog = one("#keys"); dialog && (dialog.open ? dialog.close() : dialog.showModal()); };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      if (one("dialog[open]")) return;
      if (typing(document.activeElement)) return document.activeElement.blur();
      const up = one("[data-up]");
      if (up) up.click();
      return;
    }
    if (typing(document.activeElement) || one("dialog[open]")) return;
    const custom = one(`[data-key="${CSS.escape(event.key)}"]`);
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") { const field = one("[data-search]"); if (!field) return; field.closest("details")?.setAttribute("open", ""); field.focus(); field.select?.(); }
    else if (event.key === "?") toggleKeys();
    else if (custom) custom.click();
    else return;
    event.preventDefault();
  });

  // --- small things --------------------------------------------------------------------------------------------------
  document.addEventListener("change", (event) => { if (event.target.matches("[data-submit]")) event.target.form.requestSubmit(); });
  document.addEventListener("input", (event) => { if (event.inputType === "insertReplacementText" && event.target.matches("[data-pick]")) event.target.form.requestSubmit(); });
  document.addEventListener("submit", (event) => {
    for (const field of all("[data-time]", event.target)) {
      const at = new Date(field.value);
      if (field.value && !Number.isNaN(+at)) field.value = at.toISOString().slice(0, 19);
    }
    // Empty fields of a filter would only make its address long.
    if (event.target.method === "get") for (const field of event.target.elements) if (field.name && field.value === "") field.disabled = true;
  });
  addEventListener("pageshow", () => { for (const field of all("form[method=get] :disabled")) field.disabled = false; });
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button");
    if (!button) return;
    if (button.hasAttribute("data-keys")) toggleKeys();
    if (button.dataset.copy) {
      const text = one(button.dataset.copy)?.textContent ?? "";
      try { await navigator.clipboard.writeText(text); button.dataset.done = "Copied"; } catch { button.dataset.done = "Select and copy"; }
      setTimeout(() => delete button.dataset.done, 1500);
    }
    if (button.dataset.fold) for (const part of all(button.dataset.fold)) part.open = button.dataset.open === "1";
  });

  // --- the spans of a trace --------------------------------------------------------------------------------------------
  document.addEventListener("click", (event) => {
    const chosen = event.target.closest?.("a[data-span]");
    if (!chosen || event.button || event.ctrlKey || event.metaKey || event.shiftKey || !window.htmx) return;
    event.preventDefault();
    choose(chosen);
    history.pushState({ span: chosen.getAttribute("href") }, "", chosen.href);
  });
  const choose = (chosen) => {
    for (const row of all(".tree [aria-current]")) row.removeAttribute("aria-current");
    chosen.closest("[data-row]").setAttribute("aria-current", "true");
    const address = new URL(chosen.href);
    address.searchParams.set("part", "panel");
    htmx.ajax("GET", address.href, { target: "#panel", swap: "innerHTML" }).then(() => {
      const panel = one("#panel");
      if (matchMedia("(max-width: 1000px)").matches || panel.getBoundingClientRect().top > innerHeight / 2) panel.scrollIntoView({ block: "start" });
    });
  };
  addEventListener("popstate", () => { if (one("#panel")) location.reload(); });

  // --- live lists ----------------------------------------------------------------------------------------------------
  // Who reads further down, or looks elsewhere, must not have the rows move under their eyes.
  let paused = false;
  const live = () => one("[data-live]");
  const chosen = () => all("[data-choose]:checked").length;
  const resting = () => document.hidden || paused || chosen() || scrollY > 160 || (one("[data-row]:focus-within") && document.activeElement.matches(":focus-visible"));
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.matches("[data-live]") && !["now", "load"].includes(event.detail.requestConfig.triggeringEvent?.type) && resting()) event.preventDefault();
  });
  const state = (name) => { const sign = one("[data-live-sign]"); if (sign) sign.dataset.state = name; };
  document.addEventListener("htmx:afterRequest", (event) => { if (event.target.matches?.("[data-live]")) state(event.detail.successful ? "live" : "lost"); });
  document.addEventListener("htmx:afterSwap", () => times(document));
  const show = () => { if (live()) state(resting() ? "paused" : "live"); };
  addEventListener("scroll", show, { passive: true });
  const offer = () => { one("#chosen")?.classList.toggle("some", chosen() > 0); show(); };
  document.addEventListener("change", (event) => { if (event.target.matches("[data-choose]")) offer(); });
  addEventListener("pageshow", offer);
  document.addEventListener("visibilitychange", () => { show(); if (!document.hidden) times(document); });
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-live-sign]")) return;
    paused = !paused;
    show();
    if (!paused) { scrollTo({ top: 0 }); live()?.dispatchEvent(new Event("now")); }
  });

  times(document);
  show();
})();

"use strict";
// How numbers are written: the rules of analysis/domain/figures.py and the styles of analysis/render/spec/specification.py,
// for what the page computes itself. A test writes the same values with both and compares. Times are nanoseconds.
const figures = (() => {
  const NOT_AVAILABLE = "n/a";
  const NEXT_UNIT = 0.9995;
  const DIGITS = [[99.95, 0], [9.995, 1], [NEXT_UNIT, 2], [0.09995, 3], [0.009995, 4], [0.0009995, 5]];
  const LEAST = 1e-6;
  const SPARE = 25;

  // The exact value rounded to so many decimals, a tie to the even digit, thousands grouped: Python's f"{value:,.2f}".
  // toFixed rounds the exact value too, but a tie away from zero; toLocaleString would round the shortest decimal form.
  const decimal = (value, digits = 0) => {
    const size = Math.abs(value);
    let text = size.toFixed(digits);
    const long = size.toFixed(digits + SPARE);
    if (/^50*$/.test(long.slice(-SPARE))) {
      const below = long.slice(0, -SPARE).replace(/\.$/, "");
      if (Number(below.at(-1)) % 2 === 0) text = below;
    }
    const [whole, rest] = text.split(".");
    const sign = value < 0 || Object.is(value, -0) ? "-" : "";
    return `${sign}${whole.replace(/\B(?=(\d{3})+$)/g, ",")}${rest === undefined ? "" : `.${rest}`}`;
  };
  const count = (value) => decimal(value, 0);
  const significant = (value) => {
    const size = Math.abs(value);
    if (size > 0 && size < LEAST) return value > 0 ? `< ${LEAST.toFixed(6)}` : `> -${LEAST.toFixed(6)}`;
    const found = DIGITS.find(([least]) => size >= least);
    return decimal(value, size === 0 ? 2 : found ? found[1] : 6);
  };
  const duration = (ns) => {
    for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
      if (Math.abs(ns) >= size * NEXT_UNIT) return `${significant(ns / size)} ${unit}`;
    }
    return `${Number.isInteger(ns) ? ns : significant(ns)} ns`;
  };
  const signedDuration = (ns) => {
    const text = duration(ns);
    if (text.startsWith("-")) return `−${text.slice(1)}`;
    return /[1-9]/.test(text.split(" ")[0]) ? `+${text}` : text;
  };
  const exactMs = (ns) => {
    const size = Math.abs(ns);
    return `${ns < 0 ? "-" : ""}${count(Math.floor(size / 1e6))}.${String(size % 1e6).padStart(6, "0")}`;
  };
  const ratio = (value) => {
    const percent = 100 * value;
    const size = Math.abs(percent);
    if (percent === 0) return "0 %";
    if (size < 0.01) return size >= 1e-4 ? `${Number(percent.toPrecision(1))} %` : "< 0.0001 %";
    return `${decimal(percent, size >= 1 ? 1 : 2)} %`;
  };
  const ofPeak = (value) => (value > 1 + 1e-9 ? `${ratio(value)} (above peak)` : ratio(value));
  const share = (value) => ratio(Math.min(1, value));
  const prefixed = (value, unit) => {
    if (value === 0) return `0 ${unit}`;
    for (const [prefix, size] of [["P", 1e15], ["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
      if (Math.abs(value) >= size * NEXT_UNIT) return `${significant(value / size)} ${prefix}${unit}`;
    }
    return `${significant(value)} ${unit}`;
  };
  const styles = {
    name: (value) => value,
    text: (value) => value,
    count,
    plain: String,
    exact_ms: exactMs,
    microseconds: (ns) => decimal(ns / 1e3, 2),
    duration,
    signed_duration: signedDuration,
    share,
    ratio,
    of_peak: ofPeak,
    significant,
    flop: (value) => prefixed(value, "FLOP"),
    bytes: (value) => prefixed(value, "B"),
    flop_rate: (value) => prefixed(value, "FLOP/s"),
    byte_rate: (value) => prefixed(value, "B/s"),
    shape: (value) => value.join("×"),
    yes_no: (value) => (value ? "yes" : "no"),
    decimal,
    times: (value, digits) => `${decimal(value, digits)} ×`,
  };
  const written = (style, value, digits = 0) => (value === null || value === undefined ? NOT_AVAILABLE : styles[style](value, digits));
  return { written, decimal, count, significant, duration, ratio, share, prefixed };
})();

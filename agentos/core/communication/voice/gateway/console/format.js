/** Times, durations, levels and ids as a person reads them. */

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const whole = new Intl.NumberFormat();

/** With a minus sign instead of a hyphen. */
export const signed = (value, digits) => value.toFixed(digits).replace("-", "\u2212");
export const number = (value) => whole.format(value);
export const timeOf = (milliseconds) => clock.format(new Date(milliseconds));
export const dateOf = (text) => day.format(new Date(text));
export const decibels = (value) => (value === null || value === undefined ? "silence" : `${signed(value, 1)} dBFS`);
export const share = (value) => `${(100 * value).toFixed(1)} %`;
export const shortened = (id, length = 14) => (id.length > length ? `${id.slice(0, length)}…` : id);

/** Seconds as `m:ss.s`. */
export function duration(seconds) {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  return `${minutes}:${((tenths - 600 * minutes) / 10).toFixed(1).padStart(4, "0")}`;
}

/** `stt_final` as `stt final`. */
export const spelled = (name) => name.replaceAll("_", " ");

/** Names and values in a line, as `state: active · reason: idle`; of a list, how many it has. */
export function itemized(values) {
  const read = (value) => {
    if (Array.isArray(value)) return number(value.length);
    if (typeof value === "number") return number(value);
    return typeof value === "string" ? value : JSON.stringify(value);
  };
  return Object.entries(values).map(([name, value]) => `${spelled(name)}: ${read(value)}`).join(" · ");
}

/** The audio format of a session in a few words. */
export const sound = ({ encoding, sample_rate, channels }) =>
  `${encoding}, ${whole.format(sample_rate)} Hz, ${channels === 1 ? "mono" : `${channels} channels`}`;

// The part of Proxy-Wasm 0.2.1 and of WASI that the filter beside this needs, and nothing of any SDK.

export const LOG_INFO: u32 = 2;
export const LOG_CRITICAL: u32 = 5;
export const ACTION_CONTINUE: u32 = 0;
export const ACTION_PAUSE: u32 = 1;
export const STREAM_REQUEST: u32 = 0;
export const REQUEST_HEADERS: u32 = 0;
export const RESPONSE_HEADERS: u32 = 2;
export const PLUGIN_CONFIGURATION: u32 = 7;

@external("env", "proxy_log")
declare function proxy_log(level: u32, message: usize, len: usize): u32;
@external("env", "proxy_get_buffer_bytes")
declare function proxy_get_buffer_bytes(buffer: u32, start: usize, max: usize, bytes: usize, len: usize): u32;
@external("env", "proxy_get_header_map_value")
declare function proxy_get_header_map_value(map: u32, name: usize, name_len: usize, value: usize, len: usize): u32;
@external("env", "proxy_add_header_map_value")
declare function proxy_add_header_map_value(map: u32, name: usize, name_len: usize, value: usize, len: usize): u32;
@external("env", "proxy_set_tick_period_milliseconds")
export declare function setTickPeriodMilliseconds(period: u32): u32;
@external("env", "proxy_set_effective_context")
export declare function setEffectiveContext(context: u32): u32;
@external("env", "proxy_continue_stream")
export declare function continueStream(stream: u32): u32;

@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: u32, vectors: usize, count: usize, written: usize): u32;
@external("wasi_snapshot_preview1", "clock_time_get")
declare function clock_time_get(clock: u32, precision: u64, time: usize): u32;
@external("wasi_snapshot_preview1", "random_get")
declare function random_get(buffer: usize, len: usize): u32;
@external("wasi_snapshot_preview1", "proc_exit")
declare function proc_exit(status: u32): void;

// Where the host writes its answers: an address and a length.
const ANSWER = memory.data(8);

/** The host writes what it gives where this says. */
export function malloc(len: usize): usize {
  return heap.alloc(len);
}

/** What the host has just given. It is freed. */
function taken(): string {
  const at = load<u32>(ANSWER);
  if (at == 0) return "";
  const text = String.UTF8.decodeUnsafe(at, load<u32>(ANSWER, 4));
  heap.free(at);
  return text;
}

export function log(level: u32, message: string): void {
  const text = String.UTF8.encode(message);
  proxy_log(level, changetype<usize>(text), text.byteLength);
}

export function print(line: string): void {
  const text = String.UTF8.encode(line + "\n");
  store<u32>(ANSWER, changetype<usize>(text));
  store<u32>(ANSWER, text.byteLength, 4);
  fd_write(1, ANSWER, 1, ANSWER);
}

export function buffer(kind: u32): string {
  store<u32>(ANSWER, 0);
  proxy_get_buffer_bytes(kind, 0, 1 << 30, ANSWER, ANSWER + 4);
  return taken();
}

/** A header, or "nobody". */
export function header(map: u32, name: string): string {
  const key = String.UTF8.encode(name);
  const status = proxy_get_header_map_value(map, changetype<usize>(key), key.byteLength, ANSWER, ANSWER + 4);
  return status == 0 ? taken() : "nobody";
}

export function addHeader(map: u32, name: string, value: string): void {
  const key = String.UTF8.encode(name);
  const text = String.UTF8.encode(value);
  proxy_add_header_map_value(map, changetype<usize>(key), key.byteLength, changetype<usize>(text), text.byteLength);
}

/** Seconds since 1970. */
export function now(): u64 {
  const time = memory.data(8);
  clock_time_get(0, 0, time);
  return load<u64>(time) / 1_000_000_000;
}

export function random(): u64 {
  const bytes = memory.data(8);
  random_get(bytes, 8);
  return load<u64>(bytes);
}

/** In the place of `env.abort`, which is no function of Proxy-Wasm. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  log(LOG_CRITICAL, (message ? message : "no message") + " at " + (file ? file : "?") + ":" + line.toString());
  proc_exit(255);
}

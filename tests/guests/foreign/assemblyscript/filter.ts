// A filter in AssemblyScript, on the raw ABI.
//
// It logs the visitor of each request and prints it, and tells in response headers what it knows. A request for
// /held waits for the timer, and one for /abort fails an assertion.
import * as host from "./host";

export { malloc } from "./host";

let configuration = "";
const held: u32[] = [];

export function proxy_abi_version_0_2_1(): void {}

export function proxy_on_configure(context: u32, len: u32): u32 {
  configuration = host.buffer(host.PLUGIN_CONFIGURATION);
  host.setTickPeriodMilliseconds(10);
  return String.UTF8.byteLength(configuration) == len ? 1 : 0;
}

export function proxy_on_request_headers(context: u32, count: u32, end: u32): u32 {
  const visitor = host.header(host.REQUEST_HEADERS, "x-visitor");
  host.log(host.LOG_INFO, "AssemblyScript: a request of " + visitor);
  host.print("AssemblyScript prints: " + visitor);
  const path = host.header(host.REQUEST_HEADERS, ":path");
  assert(path != "/abort", "a path that it cannot bear");
  if (path != "/held") return host.ACTION_CONTINUE;
  held.push(context);
  return host.ACTION_PAUSE;
}

export function proxy_on_tick(context: u32): void {
  while (held.length > 0) {
    host.setEffectiveContext(held.pop());
    host.continueStream(host.STREAM_REQUEST);
  }
}

export function proxy_on_response_headers(context: u32, count: u32, end: u32): u32 {
  host.addHeader(host.RESPONSE_HEADERS, "x-language", "AssemblyScript");
  host.addHeader(host.RESPONSE_HEADERS, "x-config", configuration);
  host.addHeader(host.RESPONSE_HEADERS, "x-time", host.now().toString());
  host.addHeader(host.RESPONSE_HEADERS, "x-random", host.random().toString(16).padStart(16, "0"));
  return host.ACTION_CONTINUE;
}

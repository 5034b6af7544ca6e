// The part of Proxy-Wasm 0.2.1 that the filter beside this needs, and nothing of any SDK.

package main

import (
	"encoding/binary"
	"unsafe"
)

const (
	logInfo             = 2
	actionContinue      = 0
	actionPause         = 1
	streamRequest       = 0
	requestHeaders      = 0
	responseHeaders     = 2
	callBody            = 4
	pluginConfiguration = 7
)

//go:wasmimport env proxy_log
func proxyLog(level uint32, message unsafe.Pointer, len uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBufferBytes(buffer, start, max uint32, bytes, len unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetHeaderMapValue(kind uint32, name unsafe.Pointer, nameLen uint32, value, len unsafe.Pointer) uint32

//go:wasmimport env proxy_add_header_map_value
func proxyAddHeaderMapValue(kind uint32, name unsafe.Pointer, nameLen uint32, value unsafe.Pointer, len uint32) uint32

//go:wasmimport env proxy_set_tick_period_milliseconds
func proxySetTickPeriodMilliseconds(period uint32) uint32

//go:wasmimport env proxy_set_effective_context
func proxySetEffectiveContext(context uint32) uint32

//go:wasmimport env proxy_continue_stream
func proxyContinueStream(stream uint32) uint32

//go:wasmimport env proxy_http_call
func proxyHTTPCall(cluster unsafe.Pointer, clusterLen uint32, headers unsafe.Pointer, headersLen uint32,
	body unsafe.Pointer, bodyLen uint32, trailers unsafe.Pointer, trailersLen uint32,
	timeoutMilliseconds uint32, token unsafe.Pointer) uint32

// What the host was given room for and the filter has not taken yet: the collector must leave it alone.
var given = map[uint32][]byte{}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) uint32 {
	bytes := make([]byte, size)
	at := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(bytes))))
	given[at] = bytes
	return at
}

// take returns the bytes that the host wrote at an address.
func take(at, size uint32) string {
	bytes := given[at]
	delete(given, at)
	return string(bytes[:min(size, uint32(len(bytes)))])
}

func start(text string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(text)) }

func log(message string) { proxyLog(logInfo, start(message), uint32(len(message))) }

func buffer(kind uint32) string {
	var at, size uint32
	proxyGetBufferBytes(kind, 0, 1<<30, unsafe.Pointer(&at), unsafe.Pointer(&size))
	return take(at, size)
}

// header returns a header, or "nobody".
func header(kind uint32, name string) string {
	var at, size uint32
	if proxyGetHeaderMapValue(kind, start(name), uint32(len(name)), unsafe.Pointer(&at), unsafe.Pointer(&size)) != 0 {
		return "nobody"
	}
	return take(at, size)
}

func addHeader(kind uint32, name, value string) {
	proxyAddHeaderMapValue(kind, start(name), uint32(len(name)), start(value), uint32(len(value)))
}

// call sends a request to a cluster, and returns the token of the call, or 0.
func call(cluster string, headers ...[2]string) uint32 {
	count := uint32(len(headers))
	bytes := binary.LittleEndian.AppendUint32(nil, count)
	for _, pair := range headers {
		bytes = binary.LittleEndian.AppendUint32(bytes, uint32(len(pair[0])))
		bytes = binary.LittleEndian.AppendUint32(bytes, uint32(len(pair[1])))
	}
	for _, pair := range headers {
		bytes = append(bytes, pair[0]+"\x00"+pair[1]+"\x00"...)
	}
	var token uint32
	proxyHTTPCall(start(cluster), uint32(len(cluster)), unsafe.Pointer(unsafe.SliceData(bytes)),
		uint32(len(bytes)), nil, 0, nil, 0, 5000, unsafe.Pointer(&token))
	return token
}

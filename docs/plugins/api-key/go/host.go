// The part of Proxy-Wasm 0.2.1 that the filter beside this needs.

package main

import (
	"encoding/binary"
	"unsafe"
)

const (
	logWarn                  = 3
	logError                 = 4
	actionContinue           = 0
	actionPause              = 1
	mapRequestHeaders        = 0
	bufferPluginConfig       = 7
	noGRPCStatus       int32 = -1
)

//go:wasmimport env proxy_log
func proxyLog(level uint32, message unsafe.Pointer, len uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBufferBytes(buffer, start, max uint32, bytes, len unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_pairs
func proxyGetHeaderMapPairs(kind uint32, pairs, len unsafe.Pointer) uint32

//go:wasmimport env proxy_replace_header_map_value
func proxyReplaceHeaderMapValue(kind uint32, name unsafe.Pointer, nameLen uint32, value unsafe.Pointer, len uint32) uint32

//go:wasmimport env proxy_remove_header_map_value
func proxyRemoveHeaderMapValue(kind uint32, name unsafe.Pointer, nameLen uint32) uint32

//go:wasmimport env proxy_send_local_response
func proxySendLocalResponse(status uint32, details unsafe.Pointer, detailsLen uint32, body unsafe.Pointer,
	bodyLen uint32, headers unsafe.Pointer, headersLen uint32, grpcStatus int32) uint32

// What the host was given room for and the filter has not taken yet: the collector must leave it alone.
var given = map[uint32][]byte{}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) uint32 {
	// Never of no length: that would have no address of its own.
	bytes := make([]byte, max(size, 1))
	at := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(bytes))))
	given[at] = bytes
	return at
}

// take returns the bytes that the host wrote at an address.
func take(at, size uint32) []byte {
	bytes := given[at]
	delete(given, at)
	return bytes[:min(size, uint32(len(bytes)))]
}

func start(text string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(text)) }

func log(level uint32, message string) { proxyLog(level, start(message), uint32(len(message))) }

func pluginConfiguration() []byte {
	var at, size uint32
	proxyGetBufferBytes(bufferPluginConfig, 0, 1<<30, unsafe.Pointer(&at), unsafe.Pointer(&size))
	return take(at, size)
}

// A pair of a header map.
type pair struct{ name, value []byte }

// requestHeaders returns all headers of the request, in order and repeated as they came.
func requestHeaders() []pair {
	var at, size uint32
	proxyGetHeaderMapPairs(mapRequestHeaders, unsafe.Pointer(&at), unsafe.Pointer(&size))
	return decode(take(at, size))
}

// decode reads a header map: how many pairs, the lengths of all, and then names and values with a NUL behind each.
// Numbers have 32 bits.
func decode(bytes []byte) (pairs []pair) {
	if len(bytes) < 4 {
		return nil
	}
	count := int(binary.LittleEndian.Uint32(bytes))
	lengths, texts := bytes[4:], bytes[4+8*count:]
	text := func() []byte {
		size := binary.LittleEndian.Uint32(lengths)
		text := texts[:size]
		lengths, texts = lengths[4:], texts[size+1:]
		return text
	}
	for range count {
		pairs = append(pairs, pair{text(), text()})
	}
	return pairs
}

func encode(pairs []pair) []byte {
	bytes := binary.LittleEndian.AppendUint32(nil, uint32(len(pairs)))
	for _, pair := range pairs {
		bytes = binary.LittleEndian.AppendUint32(bytes, uint32(len(pair.name)))
		bytes = binary.LittleEndian.AppendUint32(bytes, uint32(len(pair.value)))
	}
	for _, pair := range pairs {
		bytes = append(append(bytes, pair.name...), 0)
		bytes = append(append(bytes, pair.value...), 0)
	}
	return bytes
}

func setRequestHeader(name, value string) bool {
	return proxyReplaceHeaderMapValue(mapRequestHeaders, start(name), uint32(len(name)), start(value), uint32(len(value))) == 0
}

func removeRequestHeader(name string) bool {
	return proxyRemoveHeaderMapValue(mapRequestHeaders, start(name), uint32(len(name))) == 0
}

// reply answers in the place of the upstream, and returns what the callback has to.
func reply(status uint32, headers []pair, body string) uint32 {
	serialized := encode(headers)
	proxySendLocalResponse(status, nil, 0, start(body), uint32(len(body)), unsafe.Pointer(unsafe.SliceData(serialized)),
		uint32(len(serialized)), noGRPCStatus)
	return actionPause
}

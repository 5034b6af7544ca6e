// A filter in Go, on the raw ABI.
//
// It logs the visitor of each request and prints it, and tells in response headers what it knows. A request for
// /held waits for the timer, one for /ask for the answer of the cluster `other`.
package main

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"time"
)

var configuration string

// Requests that wait for the timer, and those that wait for the answer to a call, by its token.
var (
	held   []uint32
	asking = map[uint32]uint32{}
)

//go:wasmexport proxy_abi_version_0_2_1
func proxyABIVersion() {}

//go:wasmexport proxy_on_configure
func onConfigure(context, size uint32) uint32 {
	configuration = buffer(pluginConfiguration)
	proxySetTickPeriodMilliseconds(10)
	if uint32(len(configuration)) != size {
		return 0
	}
	return 1
}

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(context, count, end uint32) uint32 {
	visitor := header(requestHeaders, "x-visitor")
	log("Go: a request of " + visitor)
	fmt.Println("Go prints:", visitor)
	switch header(requestHeaders, ":path") {
	case "/held":
		held = append(held, context)
		return actionPause
	case "/ask":
		token := call("other", [2]string{":method", "GET"}, [2]string{":path", "/may-it-pass"},
			[2]string{":authority", "authority"})
		if token != 0 {
			asking[token] = context
			return actionPause
		}
	case "/sleep":
		// The host does not wait, so this only uses up the call's CPU time.
		time.Sleep(time.Hour)
	}
	return actionContinue
}

//go:wasmexport proxy_on_tick
func onTick(context uint32) {
	for _, one := range held {
		proxySetEffectiveContext(one)
		proxyContinueStream(streamRequest)
	}
	held = nil
}

//go:wasmexport proxy_on_http_call_response
func onHTTPCallResponse(context, token, headers, bodyLen, trailers uint32) {
	answer := buffer(callBody)
	proxySetEffectiveContext(asking[token])
	delete(asking, token)
	addHeader(requestHeaders, "x-answer", answer)
	proxyContinueStream(streamRequest)
}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(context, count, end uint32) uint32 {
	random := make([]byte, 8)
	rand.Read(random)
	addHeader(responseHeaders, "x-language", "Go")
	addHeader(responseHeaders, "x-config", configuration)
	addHeader(responseHeaders, "x-time", strconv.FormatInt(time.Now().Unix(), 10))
	addHeader(responseHeaders, "x-random", fmt.Sprintf("%x", random))
	return actionContinue
}

func main() {}

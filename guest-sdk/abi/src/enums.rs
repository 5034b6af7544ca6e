//! The numbers of the contract. A number that the contract does not know is an [`UnknownValue`].

use core::fmt;

/// A number outside the enum that it was read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownValue {
    /// The enum.
    pub of: &'static str,
    /// What was read.
    pub value: u32,
}

impl fmt::Display for UnknownValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a {} of Proxy-Wasm", self.value, self.of)
    }
}

impl core::error::Error for UnknownValue {}

/// Declares a C-like enum with its numbers, and the way back from a number.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)+ }

        impl $name {
            /// All variants, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }

        impl TryFrom<u32> for $name {
            type Error = UnknownValue;

            fn try_from(value: u32) -> Result<Self, UnknownValue> {
                match value {
                    $($value => Ok(Self::$variant),)+
                    value => Err(UnknownValue { of: stringify!($name), value }),
                }
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> u32 {
                value as u32
            }
        }
    };
}

wire_enum! {
    /// What a host function answers.
    Status {
        /// Done.
        Ok = 0,
        /// There is no such thing (header map, property, key, metric ...).
        NotFound = 1,
        /// An argument is out of its range, or the thing exists but not in this phase.
        BadArgument = 2,
        /// The host could not serialise the answer.
        SerializationFailure = 3,
        /// The host could not parse an argument.
        ParseFailure = 4,
        /// A pointer, or pointer and length, lies outside the guest's memory.
        InvalidMemoryAccess = 6,
        /// The queue is empty.
        Empty = 7,
        /// The compare-and-swap number does not match.
        CasMismatch = 8,
        /// The host failed.
        InternalFailure = 10,
        /// The host does not have this function.
        Unimplemented = 12,
    }
}

wire_enum! {
    /// What a callback on a stream answers.
    ///
    /// The C++ SDK has larger numbers too; a host reads everything but 0 as "stop" in one of its forms.
    Action {
        /// Go on with the next filter.
        Continue = 0,
        /// Hold the message here until the filter resumes it.
        Pause = 1,
    }
}

wire_enum! {
    /// The level of a log line.
    LogLevel {
        /// Finer than debug.
        Trace = 0,
        /// For the author of the filter.
        Debug = 1,
        /// For the operator.
        Info = 2,
        /// Something is odd.
        Warn = 3,
        /// Something failed.
        Error = 4,
        /// Something failed, and the filter with it.
        Critical = 5,
    }
}

wire_enum! {
    /// The buffers that a guest can read.
    BufferKind {
        /// The body of the request, as far as it is here.
        HttpRequestBody = 0,
        /// The body of the response, as far as it is here.
        HttpResponseBody = 1,
        /// Bytes from the downstream of a network stream.
        DownstreamData = 2,
        /// Bytes from the upstream of a network stream.
        UpstreamData = 3,
        /// The body of an HTTP call's answer.
        HttpCallResponseBody = 4,
        /// A gRPC message.
        GrpcReceiveBuffer = 5,
        /// The configuration of the VM.
        VmConfiguration = 6,
        /// The configuration of the plugin.
        PluginConfiguration = 7,
        /// The arguments of a foreign function call.
        CallData = 8,
    }
}

wire_enum! {
    /// The header maps that a guest can read.
    MapKind {
        /// Request headers, pseudo-headers included.
        HttpRequestHeaders = 0,
        /// Request trailers.
        HttpRequestTrailers = 1,
        /// Response headers, `:status` included.
        HttpResponseHeaders = 2,
        /// Response trailers.
        HttpResponseTrailers = 3,
        /// The initial metadata of a gRPC call.
        GrpcReceiveInitialMetadata = 4,
        /// The trailing metadata of a gRPC call.
        GrpcReceiveTrailingMetadata = 5,
        /// The headers of an HTTP call's answer.
        HttpCallResponseHeaders = 6,
        /// The trailers of an HTTP call's answer.
        HttpCallResponseTrailers = 7,
    }
}

wire_enum! {
    /// The streams that a guest can continue or close.
    StreamKind {
        /// The request of an HTTP exchange.
        HttpRequest = 0,
        /// The response of an HTTP exchange.
        HttpResponse = 1,
        /// The downstream half of a network stream.
        Downstream = 2,
        /// The upstream half of a network stream.
        Upstream = 3,
    }
}

wire_enum! {
    /// The kinds of metric that a guest can define.
    MetricKind {
        /// Only goes up.
        Counter = 0,
        /// Goes up and down.
        Gauge = 1,
        /// A distribution.
        Histogram = 2,
    }
}

wire_enum! {
    /// Who closed a connection.
    PeerKind {
        /// Not known.
        Unknown = 0,
        /// The proxy.
        Local = 1,
        /// The other side.
        Remote = 2,
    }
}

wire_enum! {
    /// The error numbers of WASI preview 1 that a Proxy-Wasm host answers with.
    WasiErrno {
        /// Done.
        Success = 0,
        /// Bad file descriptor.
        BadF = 8,
        /// Bad address.
        Fault = 21,
        /// Invalid argument.
        Inval = 28,
        /// Function not supported.
        NoSys = 52,
        /// Not supported.
        NotSup = 58,
        /// Invalid seek.
        SPipe = 70,
    }
}

impl From<Status> for WasiErrno {
    /// What a WASI function answers when the guest's memory does not hold what it should.
    fn from(_: Status) -> Self {
        Self::Fault
    }
}

/// The versions of the ABI, each known by the marker that a module exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// 0.1.0
    V0_1_0,
    /// 0.2.0
    V0_2_0,
    /// 0.2.1
    V0_2_1,
}

impl Version {
    /// All versions, oldest first.
    pub const ALL: &'static [Self] = &[Self::V0_1_0, Self::V0_2_0, Self::V0_2_1];

    /// The name of the function, never called, by which a module says that it is of this version.
    #[must_use]
    pub const fn marker(self) -> &'static str {
        match self {
            Self::V0_1_0 => "proxy_abi_version_0_1_0",
            Self::V0_2_0 => "proxy_abi_version_0_2_0",
            Self::V0_2_1 => "proxy_abi_version_0_2_1",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back_as_the_variant_it_came_from() {
        for &status in Status::ALL {
            assert_eq!(Status::try_from(u32::from(status)), Ok(status));
        }
        for &map in MapKind::ALL {
            assert_eq!(MapKind::try_from(u32::from(map)), Ok(map));
        }
    }

    #[test]
    fn a_number_outside_the_contract_is_named_in_the_error() {
        let error = Status::try_from(5).unwrap_err();
        assert_eq!(alloc::format!("{error}"), "5 is not a Status of Proxy-Wasm");
    }
}

//! Log lines.

use tracing::level_filters::LevelFilter;
use weir_abi::{LogLevel, Status};

use crate::plugin::abi::memory::Host;
use crate::plugin::abi::{Answer, Int, Len, OutInt, Ptr};

pub fn proxy_log(host: &mut Host<'_>, level: Int, message: Ptr, message_len: Len) -> Answer {
    let level = LogLevel::try_from(level).map_err(|_| Status::BadArgument)?;
    let (message, vm) = host.bytes(message, message_len)?;
    vm.log(level, &String::from_utf8_lossy(message.get(..LONGEST).unwrap_or(message)));
    Ok(())
}

/// The longest line, in bytes; what is beyond it is cut off.
const LONGEST: usize = 64 * 1024;

pub fn proxy_get_log_level(host: &mut Host<'_>, level: OutInt) -> Answer {
    if let Some(outside) = &host.vm().services.outside {
        let logged = outside.log_level();
        return Ok(host.write_int(level, logged.into())?);
    }
    let current = LevelFilter::current();
    let logged = if current >= LevelFilter::TRACE {
        LogLevel::Trace
    } else if current >= LevelFilter::DEBUG {
        LogLevel::Debug
    } else if current >= LevelFilter::INFO {
        LogLevel::Info
    } else if current >= LevelFilter::WARN {
        LogLevel::Warn
    } else {
        LogLevel::Error
    };
    Ok(host.write_int(level, logged.into())?)
}

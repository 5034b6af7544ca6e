//! The addresses of the demo, which must be free. They are fixed, so that its commands can be pasted.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use crate::demo::{folder, none_of, services};

/// Checks that everything which will listen finds its address free.
///
/// # Errors
/// With every address that is not, and what to do.
pub fn check_free() -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for (address, user) in addresses()? {
        if let Err(error) = TcpListener::bind(address) {
            problems.push(explain(address, user, &error));
        }
    }
    none_of(&problems)
}

/// What is wrong with an address, and the cure.
pub fn explain(address: SocketAddr, user: &str, error: &std::io::Error) -> String {
    let what = format!("{address} (the demo's {user})");
    if error.kind() == ErrorKind::AddrInUse {
        let port = address.port();
        return format!(
            "{what} is in use; `ss -ltnp sport = :{port}` shows by whom. Stop that process, or the demo that still runs"
        );
    }
    if error.kind() == ErrorKind::AddrNotAvailable {
        return format!(
            "{what} is not an address of this machine; the demo needs 127.0.0.0/8 on the loopback interface, as \
             Linux has it"
        );
    }
    format!("{what} cannot be listened on: {error}")
}

/// Every address that is listened on, with who does.
fn addresses() -> anyhow::Result<BTreeMap<SocketAddr, &'static str>> {
    let mut addresses = BTreeMap::new();
    for service in services::SERVICES {
        addresses.insert(service.address.parse()?, service.name);
    }
    for process in folder::PROCESSES {
        addresses.extend(named("address:", &process.config()?).map(|address| (address, process.name)));
    }
    Ok(addresses)
}

/// The addresses in a configuration, in the lines of a field.
fn named(field: &str, config: &str) -> impl Iterator<Item = SocketAddr> {
    let lines = config.lines().map(|line| line.split_once('#').map_or(line, |(before, _)| before));
    let lines = lines.filter(move |line| line.contains(field));
    let words = lines.flat_map(|line| line.split(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()));
    words.filter_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_the_lines_of_a_field() {
        let text = "admin: { address: 127.0.0.1:1 } # not address: 127.0.0.1:9\nendpoints: [ \"127.0.0.3:2\", x.y:3 ]";
        let found = |field| named(field, text).map(|address| address.to_string()).collect::<Vec<_>>();
        assert_eq!(found("address:"), ["127.0.0.1:1"]);
        assert_eq!(found("endpoints:"), ["127.0.0.3:2"]);
    }

    #[test]
    fn every_endpoint_of_the_examples_is_listened_on() {
        let listened = addresses().expect("good addresses");
        for process in folder::PROCESSES {
            let config = process.config().expect("the example is there");
            for address in named("endpoints:", &config) {
                assert!(listened.contains_key(&address), "{} sends to {address}", process.name);
            }
        }
    }

    #[test]
    fn an_address_in_use_is_named_with_its_user_and_the_cure() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("an address");
        let error = TcpListener::bind(address).expect_err("it is taken");
        let message = explain(address, "gateway", &error);
        assert!(message.contains(&format!("{address} (the demo's gateway) is in use")), "{message}");
        assert!(message.contains(&format!("sport = :{}", address.port())), "{message}");
    }
}

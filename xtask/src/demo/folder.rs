//! The demo's folder: configurations, certificates and plugins, as an operator would lay them out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cargo::{root, target};
use crate::certs::{Authority, Certificate};
use crate::guests;

/// A Weir of the demo.
#[derive(Debug)]
pub struct Process {
    /// Its name.
    pub name: &'static str,
    /// Its folder, below the demo's.
    folder: &'static str,
    /// Its configuration file.
    file: &'static str,
    /// Its admin API.
    pub admin: &'static str,
    /// The plugins that it uses.
    plugins: &'static [&'static str],
    /// The name of its certificate.
    certificate: &'static str,
    /// What its certificate is for. The addresses are for those who come without a sidecar, such as curl.
    names: &'static [&'static str],
    /// Which way round it takes the example.
    read: fn(&str) -> String,
}

/// The Weirs of the demo.
pub const PROCESSES: &[Process] = &[
    Process {
        name: "gateway",
        folder: "",
        file: "gateway.yaml",
        admin: "127.0.0.1:19901",
        plugins: &["sni-router", "authz", "header-rewrite"],
        certificate: "gateway",
        names: &["localhost", "spiffe://mesh.internal/gateway"],
        read: str::to_owned,
    },
    Process {
        name: "orders-sidecar",
        folder: "orders",
        file: "sidecar.yaml",
        admin: "127.0.0.2:19901",
        plugins: &["authz"],
        certificate: "orders",
        names: &["127.0.0.2", "spiffe://mesh.internal/orders"],
        read: str::to_owned,
    },
    Process {
        name: "payments-sidecar",
        folder: "payments",
        file: "sidecar.yaml",
        admin: "127.0.0.3:19901",
        plugins: &["authz"],
        certificate: "payments",
        names: &["127.0.0.3", "spiffe://mesh.internal/payments"],
        read: exchanged,
    },
];

impl Process {
    /// Its configuration, made from the example.
    pub fn config(&self) -> anyhow::Result<String> {
        let example = root().join("docs/examples").join(self.file);
        let text =
            fs::read_to_string(&example).with_context(|| format!("cannot read {}", example.display()))?;
        Ok((self.read)(&text))
    }
}

/// The sidecar of `orders` as that of `payments`: the two names and the two addresses change places.
fn exchanged(text: &str) -> String {
    [("orders", "payments"), ("127.0.0.2", "127.0.0.3")].into_iter().fold(text.to_owned(), |text, (a, b)| {
        text.split(a).map(|piece| piece.replace(b, a)).collect::<Vec<_>>().join(b)
    })
}

/// The folder of a demo that is about to run.
pub struct Folder {
    path: PathBuf,
    authority: Authority,
}

impl Folder {
    /// Makes the folder anew. `plugins`: where the standard filters are.
    ///
    /// # Errors
    /// When something in it cannot be made.
    pub fn make(plugins: &Path) -> anyhow::Result<Self> {
        // Relative to the root of the repository, where the commands are pasted.
        let path = target().join("demo");
        let path = path.strip_prefix(root()).map(Path::to_owned).unwrap_or(path);
        std::env::set_current_dir(root())?;
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot clear {}", path.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let folder = Self { path, authority: Authority::new("Weir demo authority")? };
        fs::create_dir_all(folder.logs())?;
        for process in PROCESSES {
            folder.lay_out(process, plugins)?;
        }
        folder.callers()?;
        folder.greetings()?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the logs of the processes are.
    pub fn logs(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Who signs the demo's certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The configuration file of a process.
    pub fn config(&self, process: &Process) -> PathBuf {
        self.path.join(process.folder).join(process.file)
    }

    /// What one Weir needs: its configuration, its certificate and its plugins.
    fn lay_out(&self, process: &Process, plugins: &Path) -> anyhow::Result<()> {
        let own = self.path.join(process.folder);
        for part in ["tls", "plugins"] {
            fs::create_dir_all(own.join(part))?;
        }
        write(&self.config(process), &process.config()?)?;
        write(&own.join("tls/ca.pem"), self.authority.pem())?;
        let certificate = self.authority.sign(process.certificate, process.names)?;
        certificate.write(&own.join("tls"), process.certificate)?;
        for plugin in process.plugins {
            let file = format!("{plugin}.wasm");
            let (from, to) = (plugins.join(&file), own.join("plugins").join(&file));
            fs::copy(&from, to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(())
    }

    /// Who calls, with certificate and key in one file each, as curl takes them.
    fn callers(&self) -> anyhow::Result<()> {
        for name in ["billing", "guest"] {
            let identity = format!("spiffe://mesh.internal/{name}");
            let Certificate { cert, key, .. } = self.authority.sign(name, &[&identity])?;
            write(&self.path.join("tls").join(format!("{name}.pem")), &format!("{cert}{key}"))?;
        }
        Ok(())
    }

    /// Two versions of the greeting, of which the first is in the plugin directory.
    fn greetings(&self) -> anyhow::Result<()> {
        let versions = self.path.join("versions");
        fs::create_dir_all(&versions)?;
        for (number, greeting) in [(1, "Hello"), (2, "Good evening")] {
            guests::build_greeting(greeting, &versions.join(format!("greeting-{number}.wasm")))?;
        }
        fs::copy(versions.join("greeting-1.wasm"), self.path.join("plugins/greeting.wasm"))?;
        Ok(())
    }
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sidecar_of_payments_is_that_of_orders_with_names_and_addresses_exchanged() {
        let text = "orders at 127.0.0.2 asks payments at 127.0.0.3; payments answers";
        let other = exchanged(text);
        assert_eq!(other, "payments at 127.0.0.3 asks orders at 127.0.0.2; orders answers");
        assert_eq!(exchanged(&other), text);
    }

    #[test]
    fn every_admin_api_is_where_its_configuration_says() {
        for process in PROCESSES {
            let config = process.config().expect("the example is there");
            assert!(config.contains(&format!("admin: {{ address: {} }}", process.admin)), "{}", process.name);
        }
    }
}

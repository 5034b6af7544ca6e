//! The commands of the demo: one table, from which they are printed and checked.

use std::fmt::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::demo::none_of;
use crate::say;

/// Something to see.
#[derive(Debug)]
struct Show {
    /// What it shows.
    title: &'static str,
    /// What to paste. `{demo}` stands for the demo's folder.
    command: &'static str,
    /// What must be in its output.
    expect: &'static [&'static str],
    /// What must not.
    never: &'static [&'static str],
}

/// The table.
const SHOWS: &[Show] = &[
    Show {
        title: "SNI passthrough: the name decides, and what curl verifies is the certificate of catalog-prod itself",
        command: "curl -s --cacert {demo}/tls/ca.pem --connect-to ::127.0.0.1:15443 \
                  https://prod.catalog.meshproxy.internal/",
        expect: &["this is catalog-prod (TLSv1_3, no client certificate)\n"],
        never: &[],
    },
    Show {
        title: "The same port with another name: the certificate of catalog-test, whose key the gateway never had",
        command: "openssl s_client -connect 127.0.0.1:15443 -servername test.catalog.meshproxy.internal \
                  </dev/null 2>/dev/null | openssl x509 -noout -subject -ext subjectAltName",
        expect: &["catalog-test\n", "DNS:test.catalog.meshproxy.internal\n"],
        never: &["prod"],
    },
    Show {
        title: "authz: billing may read (and the gateway shows its own certificate to the service behind)",
        command: "curl -s --cacert {demo}/tls/ca.pem --cert {demo}/tls/billing.pem -w 'status %{http_code}\\n' \
                  https://localhost:18443/v1/invoices",
        expect: &["this is api (TLSv1_3, a client certificate)\nGET /v1/invoices ", "status 200\n"],
        never: &[],
    },
    Show {
        title: "authz: guest has a good certificate too, but no rule allows it",
        command: "curl -s --cacert {demo}/tls/ca.pem --cert {demo}/tls/guest.pem -w 'status %{http_code}\\n' \
                  https://localhost:18443/v1/invoices",
        expect: &["denied\nstatus 403\n"],
        never: &["this is"],
    },
    Show {
        title: "header-rewrite: x-debug goes, a forged x-team is replaced, and x-caller is who called",
        command: "curl -si --cacert {demo}/tls/ca.pem --cert {demo}/tls/billing.pem -H 'x-debug: 1' \
                  -H 'x-team: forged' https://localhost:18443/v1/invoices",
        expect: &[
            "x-served-by: 127.0.0.1:19003\r\n",
            "x-decision: billing-reads\r\n",
            "x-team: billing\n",
            "x-caller: spiffe://mesh.internal/billing\n",
        ],
        never: &["x-debug", "forged"],
    },
    Show {
        title: "Sidecars: orders asks payments in plain HTTP, and payments is told who asks by the mutual TLS between",
        command: "curl -s http://127.0.0.2:18080/ask/payments",
        expect: &[
            "this is orders, and payments answers 200:\n\nthis is payments (plain HTTP)\n",
            "x-forwarded-client-cert: ",
            "URI=spiffe://mesh.internal/orders",
        ],
        never: &[],
    },
    Show {
        title: "Sidecars: nobody else gets in, not with a certificate of the mesh either",
        command: "curl -s --cacert {demo}/tls/ca.pem --cert {demo}/tls/guest.pem -w 'status %{http_code}\\n' \
                  https://127.0.0.3:15006/",
        expect: &["denied\nstatus 403\n"],
        never: &["this is"],
    },
    Show {
        title: "The access log: who asked for what, which filter decided, and where it went",
        command: "tail -n 4 {demo}/access.log",
        expect: &[
            "\"identity\":\"spiffe://mesh.internal/guest\"",
            "\"filter\":\"authz\"",
            "\"upstream\":\"127.0.0.1:19003\"",
        ],
        never: &[],
    },
    Show {
        title: "The admin API: plugins, their versions, and what they used",
        command: "curl -s http://127.0.0.1:19901/plugins",
        expect: &[
            "\"authz\"",
            "\"greeting\"",
            "\"header-rewrite\"",
            "\"sni-router\"",
            "\"state\": \"serving\"",
        ],
        never: &["rejected"],
    },
    Show {
        title: "Live swap: copy another version over the plugin, and see the answer change between two requests",
        command: "cp {demo}/versions/greeting-2.wasm {demo}/plugins/greeting.wasm; \
                  for i in 1 2 3 4 5 6 7 8 9 10; do curl -sf http://127.0.0.1:18080/hello || echo failed; sleep 0.3; done",
        expect: &["Good evening, world!\nGood evening, world!\n"],
        never: &["failed"],
    },
    Show {
        title: "A broken file is refused with its reason, and the version that serves goes on",
        command: "head -c 1000 {demo}/versions/greeting-1.wasm > {demo}/plugins/greeting.wasm; \
                  until curl -s http://127.0.0.1:19901/plugins | grep '\"reason\"'; do sleep 0.1; done; \
                  curl -s http://127.0.0.1:18080/hello",
        expect: &["it is not valid WebAssembly, or not all of it", "Good evening, world!\n"],
        never: &[],
    },
];

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The commands, for a demo in some folder.
pub struct Commands {
    folder: String,
    proxied: bool,
}

impl Commands {
    /// For the demo in this folder.
    pub fn new(folder: &Path) -> Self {
        let variables = ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
        let proxied =
            variables.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        Self { folder: quoted(&folder.to_string_lossy()), proxied }
    }

    /// What to paste.
    pub fn text(&self) -> String {
        let mut text = "Paste into another shell, in the root of the repository:\n".to_owned();
        if self.proxied {
            text.push_str("\n   (curl is set up for a proxy here, which these addresses are not for)\n");
            text.push_str("   export no_proxy='*'\n");
        }
        for (number, show) in (1..).zip(SHOWS) {
            // A string takes everything.
            let _ = writeln!(text, "\n{number:>2}. {}\n    {}", show.title, self.fill(show));
        }
        text
    }

    /// Runs them in order, and says of each whether it shows what it should.
    ///
    /// # Errors
    /// When one does not.
    pub async fn check(&self) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        for (number, show) in (1..).zip(SHOWS) {
            let problem = self.run(show).await.err();
            say(&format!(
                "{:<6} {number:>2}. {}",
                if problem.is_none() { "ok" } else { "failed" },
                show.title
            ));
            if let Some(problem) = problem {
                failed.push(format!("{number}. {}\n{problem:#}", self.fill(show)));
            }
        }
        none_of(&failed)
    }

    fn fill(&self, show: &Show) -> String {
        show.command.replace("{demo}", &self.folder)
    }

    async fn run(&self, show: &Show) -> anyhow::Result<()> {
        let mut command = Command::new("bash");
        command.arg("-c").arg(self.fill(show)).stdin(Stdio::null()).kill_on_drop(true);
        if self.proxied {
            command.env("no_proxy", "*");
        }
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.with_context(|| format!("it does not end within {PATIENCE:?}"))??;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let missing =
            show.expect.iter().filter(|text| !out.contains(**text)).map(|text| format!("no {text:?}"));
        let excess = show.never.iter().filter(|text| out.contains(**text)).map(|text| format!("{text:?}"));
        let wrong: Vec<String> = missing.chain(excess).collect();
        if !wrong.is_empty() || !output.status.success() {
            bail!("{}; its output has {}:\n{out}{err}", output.status, wrong.join(", "));
        }
        Ok(())
    }
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    if path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c)) {
        return path.to_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// Checks that the tools of the commands are installed.
///
/// # Errors
/// With those that are not.
pub fn find_tools() -> anyhow::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let missing = ["bash", "curl", "openssl"]
        .into_iter()
        .filter(|tool| !folders.iter().any(|f| f.join(tool).is_file()));
    let missing: Vec<String> =
        missing.map(|tool| format!("the demo needs `{tool}`, which is not installed; install it")).collect();
    none_of(&missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_quoted_where_a_shell_would_take_it_apart() {
        assert_eq!(quoted("target/demo"), "target/demo");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
    }

    #[tokio::test]
    async fn a_command_that_shows_something_else_fails() {
        let commands = Commands { folder: "x".to_owned(), proxied: false };
        let show = |command, expect, never| Show { title: "", command, expect, never };
        commands.run(&show("echo {demo}", &["x\n"], &["y"])).await.expect("it shows x, and no y");
        for wrong in
            [show("echo a", &["b"], &[]), show("echo a", &[], &["a"]), show("echo a; false", &["a"], &[])]
        {
            commands.run(&wrong).await.expect_err(wrong.command);
        }
    }
}

//! Simulated backends for `olla demo`: four servers inside the process, each with the dialect, the
//! listings and the pace of a real one, so that everything can be tried with nothing installed.
//!
//! They answer with made-up text. One of them is away for some seconds twice a minute, to let
//! failover be watched.

mod dialects;
mod server;
mod text;

use std::io;

use server::{Backend, Dialect};

/// The model that two backends have, so that balancing and failover show.
const SHARED_MODEL: &str = "llama3.2:3b";

/// The simulated backends; they end with the process.
#[derive(Debug)]
pub struct Demo {
    backends: Vec<Backend>,
}

impl Demo {
    /// Starts the four, each on a free port of its own.
    ///
    /// # Errors
    /// When a port or a thread cannot be had.
    pub fn start() -> io::Result<Self> {
        let plans = [
            (
                "ollama-desktop",
                Dialect::Ollama,
                &[SHARED_MODEL, "nomic-embed-text:latest"][..],
                24,
            ),
            (
                "lmstudio-laptop",
                Dialect::LmStudio,
                &["qwen2.5-coder-7b-instruct"][..],
                30,
            ),
            (
                "vllm-rack",
                Dialect::Vllm,
                &["meta-llama/Llama-3.1-8B-Instruct"][..],
                40,
            ),
            ("llamacpp-attic", Dialect::LlamaCpp, &[SHARED_MODEL][..], 18),
        ];
        let start = |(name, dialect, models, pace)| Backend::start(name, dialect, models, pace);
        let backends = plans.into_iter().map(start).collect::<io::Result<_>>()?;
        Ok(Self { backends })
    }

    /// A configuration of the gateway in front of them.
    pub fn config_toml(&self, port: u16) -> String {
        let mut toml = format!(
            "[server]\nport = {port}\n\n[server.rate_limits]\nglobal_requests_per_minute = 0\n\
             per_ip_requests_per_minute = 0\n\n[logging]\nlevel = \"warn\"\n\n\
             [model_aliases]\nchat = [\"{SHARED_MODEL}\", \"meta-llama/Llama-3.1-8B-Instruct\"]\n"
        );
        for backend in &self.backends {
            toml += &format!(
                "\n[[discovery.static.endpoints]]\nname = \"{}\"\nurl = \"http://{}\"\n\
                 type = \"{}\"\ncheck_interval = \"1s\"\ncheck_timeout = \"500ms\"\n",
                backend.name,
                backend.address,
                backend.dialect.provider(),
            );
        }
        toml
    }

    /// What to try.
    pub fn guide(&self, url: &str) -> String {
        let mut out = String::from("Four simulated backends:\n");
        for backend in &self.backends {
            let away = if backend.dialect.is_moody() {
                "; away 6 s of every 30"
            } else {
                ""
            };
            out += &format!(
                "  {:16} {:10} {}{away}\n",
                backend.name,
                backend.dialect.provider(),
                backend.models.join(", "),
            );
        }
        out += &format!(
            "\nTry in another terminal:\n\n\
             # every model, whatever serves it\n\
             curl {url}/olla/models\n\n\
             # a chat; say it again while llamacpp-attic is away\n\
             curl {url}/olla/openai/v1/chat/completions -H 'Content-Type: application/json' \\\n  \
             -d '{{\"model\":\"{SHARED_MODEL}\",\"messages\":[{{\"role\":\"user\",\
             \"content\":\"What is a gateway?\"}}]}}'\n\n\
             # streamed, by an alias\n\
             curl -N {url}/olla/openai/v1/chat/completions -H 'Content-Type: application/json' \\\n  \
             -d '{{\"model\":\"chat\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\
             \"content\":\"Why do tokens stream?\"}}]}}'\n\n\
             # Ollama's dialect\n\
             curl {url}/olla/ollama/api/chat -d '{{\"model\":\"{SHARED_MODEL}\",\
             \"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n\n\
             # Anthropic's dialect, for a backend that does not speak it\n\
             curl {url}/olla/anthropic/v1/messages -H 'Content-Type: application/json' \\\n  \
             -d '{{\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"max_tokens\":64,\
             \"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n\n\
             # who answered, and why (see the X-Olla headers)\n\
             curl -i {url}/olla/proxy/v1/embeddings -H 'Content-Type: application/json' \\\n  \
             -d '{{\"model\":\"nomic-embed-text:latest\",\"input\":\"hello\"}}'\n\n\
             # how the backends are\n\
             curl {url}/internal/status/endpoints\n\n\
             Dashboard: {url}/internal/ui/\n\
             Ctrl-C ends the demo.\n\n\
             Requests as they are answered:\n"
        );
        out
    }
}

#[cfg(test)]
mod tests;

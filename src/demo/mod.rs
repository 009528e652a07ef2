//! Simulated endpoints for `olla demo`: four servers inside the process with the API, the model lists
//! and the speed of real ones. Nothing else needs to be installed.
//!
//! They respond with made-up text. One of them is offline for some seconds twice a minute, which
//! shows failover and recovery.

mod dialects;
mod server;
mod text;

use std::io;

use server::{Backend, BackendKind};

/// The model of two endpoints, which shows balancing and failover.
const SHARED_MODEL: &str = "llama3.2:3b";

/// The simulated endpoints; they end with the process.
#[derive(Debug)]
pub(crate) struct Demo {
    backends: Vec<Backend>,
}

impl Demo {
    /// Starts the four endpoints, each on a free port.
    ///
    /// # Errors
    /// The system has no port or thread left.
    pub(crate) fn start() -> io::Result<Self> {
        let plans = [
            (
                "ollama-desktop",
                BackendKind::Ollama,
                &[SHARED_MODEL, "nomic-embed-text:latest"][..],
                24,
            ),
            (
                "lmstudio-laptop",
                BackendKind::LmStudio,
                &["qwen2.5-coder-7b-instruct"][..],
                30,
            ),
            (
                "vllm-rack",
                BackendKind::Vllm,
                &["meta-llama/Llama-3.1-8B-Instruct"][..],
                40,
            ),
            (
                "llamacpp-attic",
                BackendKind::LlamaCpp,
                &[SHARED_MODEL][..],
                18,
            ),
        ];
        let start = |(name, dialect, models, pace)| {
            Backend::start(name, dialect, models, pace, dialects::respond)
        };
        let backends = plans.into_iter().map(start).collect::<io::Result<_>>()?;
        Ok(Self { backends })
    }

    /// The configuration of the gateway. Its log has errors only: the demo prints a line for each
    /// endpoint that fails or recovers.
    pub(crate) fn config_toml(&self, port: u16) -> String {
        let mut toml = format!(
            "[server]\nport = {port}\n\n[server.rate_limits]\nglobal_requests_per_minute = 0\n\
             per_ip_requests_per_minute = 0\n\n[logging]\nlevel = \"error\"\n\n\
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

    /// The endpoints, and commands to try.
    pub(crate) fn guide(&self, url: &str) -> String {
        let mut out = String::from("Four simulated endpoints:\n");
        for backend in &self.backends {
            let outages = if backend.dialect.has_outages() {
                "; offline for 6 of every 30 seconds"
            } else {
                ""
            };
            out += &format!(
                "  {:16} {:10} {}{outages}\n",
                backend.name,
                backend.dialect.provider(),
                backend.models.join(", "),
            );
        }
        out += &format!(
            "\nTry in another terminal:\n\n\
             # list the models of all endpoints\n\
             curl {url}/olla/models\n\n\
             # chat; repeat it while llamacpp-attic is offline\n\
             curl {url}/olla/openai/v1/chat/completions -H 'Content-Type: application/json' \\\n  \
             -d '{{\"model\":\"{SHARED_MODEL}\",\"messages\":[{{\"role\":\"user\",\
             \"content\":\"What is a gateway?\"}}]}}'\n\n\
             # chat by an alias, streamed\n\
             curl -N {url}/olla/openai/v1/chat/completions -H 'Content-Type: application/json' \\\n  \
             -d '{{\"model\":\"chat\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\
             \"content\":\"Why do tokens stream?\"}}]}}'\n\n\
             # chat by Ollama's API\n\
             curl {url}/olla/ollama/api/chat -d '{{\"model\":\"{SHARED_MODEL}\",\
             \"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n\n\
             # chat by Anthropic's API, with an endpoint that only has OpenAI's\n\
             curl {url}/olla/anthropic/v1/messages -H 'Content-Type: application/json' \\\n  \
             -d '{{\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"max_tokens\":64,\
             \"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n\n\
             # show the endpoint and the reason (the X-Olla headers)\n\
             curl -i {url}/olla/proxy/v1/embeddings -H 'Content-Type: application/json' \\\n  \
             -d '{{\"model\":\"nomic-embed-text:latest\",\"input\":\"hello\"}}'\n\n\
             # show the health of the endpoints\n\
             curl {url}/internal/status/endpoints\n\n\
             Dashboard: {url}/internal/ui/\n\
             Stop the demo with Ctrl-C.\n\n\
             Requests and endpoints:\n"
        );
        out
    }
}

#[cfg(test)]
mod tests;

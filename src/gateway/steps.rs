//! The steps of a dialect over a whole body, here or, if they take too long, on another thread.

use std::rc::Rc;

use olla_engine::handler::{Ask, Cx};

use super::away::{Away, Done};
use super::exchange::Exchange;
use crate::dialects::{Dialect, Error, Moment, Sending, Sent};
use crate::inspect::without_mark;

impl Exchange {
    /// Gives a step away, on the bytes that the current call of the engine is about. The call
    /// returns `Work`, and on the next one [`Self::come_back`] has the result.
    pub(super) fn send_away(
        &mut self,
        step: impl FnOnce(&mut Dialect, &[u8]) -> Done + Send + 'static,
    ) {
        // Statistics of a request that ends meanwhile are those of one that was not looked at yet.
        let stand_in = self.route.begin();
        let dialect = std::mem::replace(&mut self.dialect, stand_in);
        self.away = Some(Box::new(Away::send(dialect, step)));
    }

    /// The result of a step that was given away.
    pub(super) fn come_back(&mut self) -> Option<Done> {
        let (dialect, done) = self.away.take()?.come_back()?;
        self.dialect = dialect;
        Some(done)
    }

    /// Reads the body by the rules of the dialect; `None` = it was given away.
    pub(super) fn read_dialect(&mut self, body: &[u8]) -> Option<Result<(), Error>> {
        if !self.dialect.is_long(body.len()) {
            let text = self.unmarked(body);
            return Some(self.dialect.read(text, &mut self.kept.model));
        }
        let mut model = std::mem::take(&mut self.kept.model);
        let own = self.own_body();
        self.send_away(move |dialect, body| {
            let body = own.as_deref().unwrap_or(body);
            let read = dialect.read(without_mark(body), &mut model);
            Done::Read(model, read)
        });
        None
    }

    /// Prepares the request for the picked endpoint; `None` = that was given away.
    pub(super) fn request_dialect(
        &mut self,
        ask: &Ask<'_>,
        index: usize,
    ) -> Option<Result<Sent, Error>> {
        let view = Rc::clone(&self.view);
        let endpoint = view.leased(index);
        let sent_model = self.kept.sent_model.as_str();
        let name = if sent_model.is_empty() {
            &self.kept.model
        } else {
            sent_model
        };
        let served_context = || view.snapshot.catalogue.served_context_on(index, name);
        let random = &self.gateway.random;
        self.dialect.picked(index);
        let target = self.dialect.target(endpoint);
        let is_copied = target.is_some_and(|target| target.translated);
        let own = self.own_body();
        let body = own.as_deref().unwrap_or(ask.body);
        if !(is_copied && self.dialect.is_long(body.len())) {
            return Some(self.dialect.request(&Sending {
                body: self.unmarked(body),
                model: &self.kept.model,
                name,
                kind: &endpoint.profile.name,
                served_context: &served_context,
                seed: &|| random.seed(),
                at: Self::moment(ask.cx),
            }));
        }
        let (model, name) = (self.kept.model.clone(), name.to_owned());
        let kind = endpoint.profile.name.clone();
        let (context, seed, at) = (served_context(), random.seed(), Self::moment(ask.cx));
        self.send_away(move |dialect, body| {
            let body = own.as_deref().unwrap_or(body);
            Done::Request(dialect.request(&Sending {
                body: without_mark(body),
                model: &model,
                name: &name,
                kind: &kind,
                served_context: &|| context,
                seed: &|| seed,
                at,
            }))
        });
        None
    }

    /// The time of a call, for what a dialect writes.
    pub(super) fn moment(cx: &Cx<'_>) -> Moment {
        Moment {
            unix_ms: cx.unix_ms,
            elapsed: cx.now.saturating_duration_since(cx.arrived),
        }
    }
}

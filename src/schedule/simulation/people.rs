//! People: conversations that come, pause, go on and end.

use super::super::models::mix;
use super::engine::BLOCK_TOKENS;
use super::{Event, Phase, Request, Simulation};

/// A kind of people.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    pub(super) models: Vec<u32>,
    /// Exponent by which the first models are more popular; 0 = all alike.
    pub(super) zipf: f64,
    pub(super) user_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) system_tokens: u64,
    /// How many system prompts there are.
    pub(super) groups: u64,
    pub(super) rounds: u32,
    pub(super) think_ms: f64,
    /// Conversations a second, if there are no users.
    pub(super) arrivals: f64,
    /// So many begin anew when done.
    pub(super) users: u32,
    pub(super) flow: u64,
    pub(super) weight: u32,
    pub(super) priority: u8,
}

/// A conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    crowd: usize,
    model: u32,
    history: Vec<u64>,
    round: u32,
    user: bool,
}

/// The blocks of an answer.
pub(super) fn said(conversation: usize, began_us: u64, tokens: u64) -> Vec<u64> {
    let begin = mix(conversation as u64 ^ began_us.rotate_left(17));
    let count = (tokens / BLOCK_TOKENS).max(1);
    (0..count).map(|at| mix(begin ^ at)).collect()
}

impl Simulation {
    pub(super) fn begin(&mut self, crowd: usize, user: bool) {
        let kind = self.crowds[crowd].clone();
        let group = self.random.u64(..kind.groups.max(1));
        let model = self.popular(&kind);
        let begin = mix((crowd as u64) << 40 ^ group ^ u64::from(model) << 50);
        let count = kind.system_tokens / BLOCK_TOKENS;
        self.conversations.push(Conversation {
            crowd,
            model,
            history: (0..count).map(|at| mix(begin ^ at)).collect(),
            round: 0,
            user,
        });
        self.turn(self.conversations.len() - 1);
    }

    fn popular(&mut self, kind: &Crowd) -> u32 {
        if kind.zipf == 0.0 {
            return kind.models[self.random.usize(..kind.models.len())];
        }
        let weight = |at: usize| ((at + 1) as f64).powf(-kind.zipf);
        let total: f64 = (0..kind.models.len()).map(weight).sum();
        let mut point = self.random.f64() * total;
        for (at, model) in kind.models.iter().enumerate() {
            point -= weight(at);
            if point <= 0.0 {
                return *model;
            }
        }
        kind.models[0]
    }

    pub(super) fn turn(&mut self, conversation: usize) {
        let noise = self.noisy();
        let is_known = self.noise == 0.0;
        let talking = &self.conversations[conversation];
        let kind = &self.crowds[talking.crowd];
        let count = (kind.user_tokens / BLOCK_TOKENS).max(1);
        let begin = mix(mix(conversation as u64) ^ u64::from(talking.round) << 32);
        let mut blocks = talking.history.clone();
        blocks.extend((0..count).map(|at| mix(begin ^ at)));
        let output = ((kind.output_tokens as f64 * noise) as u64).max(1);
        self.requests.push(Request {
            conversation,
            crowd: talking.crowd,
            model: talking.model,
            blocks,
            output,
            // Who knows how long the answer will be says so, as the people of the load test do.
            output_max: is_known.then_some(output),
            began_us: self.now_us,
            first_us: None,
            sent_us: 0,
            phase: Phase::Waiting,
            attempt: 0,
            stay: 0,
            idle_since_us: None,
            engine: 0,
            ticket: None,
            charge: None,
            dispatch: None,
            hit: 0,
            step_us: 0.0,
        });
        let request = self.requests.len() - 1;
        if self.leaves > 0.0 && self.random.f64() < self.leaves {
            let at = self.exponential(300_000.0);
            self.at(at, Event::Leave { request });
        }
        self.arrive(request);
    }

    /// A turn is over: the next one, or another conversation of the same user.
    pub(super) fn went_on(&mut self, conversation: usize, history: Vec<u64>) {
        let talking = &mut self.conversations[conversation];
        talking.history = history;
        talking.round += 1;
        let (crowd, user, round) = (talking.crowd, talking.user, talking.round);
        if round < self.crowds[crowd].rounds {
            let pause = self.exponential(self.crowds[crowd].think_ms.max(0.001) * 1000.0);
            self.at(pause, Event::Turn { conversation });
        } else if user {
            self.at(5_000, Event::Begin { crowd, user });
        }
    }
}

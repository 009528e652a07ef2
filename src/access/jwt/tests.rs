use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use super::check::check;
use super::*;
use crate::config::{
    ConfigInputs, Env, FileFormat, JwksSource, JwtAlgorithm, JwtPlan, NameFilter, SET_BYTES_MAX,
    SetFault, plan_from_str,
};

/// An RSA key of 2,048 bits (PKCS #8), made for these tests.
const RSA: &[&str] = &[
    "MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDgEZT0yLoUQ5rdwkxZf9C6SQcRHzX9jx4IrjHcoJJBwLbGze5w",
    "IxVHYsp5Nii+/w9Vh/6vddBTTOymAbaQiOOMXlIdFAbdRDhvHcubPlffgZFIHjEgsj22AiIaxSSGiNtNNMFyXOLnHqG+nnSHH23k",
    "d9sEq1ls14J176CBl2X9BnPJov5ULH5JNzAQc8vU/IxyNSyUXiGVYdGmd1KZC60GdNNm7Tm+iyVDb8Dp8TVP6Alwfm0O8nh09b9l",
    "PeToYJXHcBQ2cwBP8cF0cD6HSrCS5pAgPH7eyI7eMoj3h6tDciM4nveihF18IjfOkr5rtnai45nmShPzUQ1dEDunzrBlAgMBAAEC",
    "ggEALgcekKwdIWWDzhMIKQhrAaFXvMorBpOcKU9TOc2YTb5/LVaHKOzkBZ6DFiQseZOefETr6fIrIbl3EWDftlAQYjjL6GJBSLmn",
    "WBgIR7MmTOjqRaTCFcPXjmhgxhwCNUqutezk4g+3op91vVkCefFYWyrNyGdEfunESGK5l3VYw4Fp16hiO0UAJiNZEMwpPFKoQzvh",
    "FSmA7XViuCv4/PddEL6TzMUMYq08QxTWuPVZNLzGItYOgicmKyYC99/lVgrmTDd/mLGOKl9stRayTlPPC7our2kXInEDuWjMAa8F",
    "3h0Je8LQwTIgZ+k079lWJeZa06veZalIyMjQig/hbrMnsQKBgQD4e3khOmsw9syIsenJ2a5+9kPus0/cbb48KF4ZOdumAvcSZkE+",
    "pKj5SfNePJNHOSkNCEimubuDyyfHkI/1ZjHEmXFxO8eCeu4fmZFiKGPh9MblXhlrDrMRiiJKl5P0f7vsaWccP2PTxcyJPw4+S2g+",
    "5hBZeilecXEBOIJUv9V4SQKBgQDm2QWhlnmm8NFzAa5CvX8B1swM4ljgefscN+N7gogA2bhoQkUGxcPOAvQt2u/YMzaKZVXDIl0M",
    "N9vKVAL/qeIjlRVHSnnriReKTby6wBbOK4ycMMP/Y6cx4ntVJ/WfwLf2Mpk3rhvNEy/G3Jo1AmTGkI2AHXwK+PM82qQ3lD7PPQKB",
    "gQCNjwo6++UFSBTN602dSP44JmQdINpmYb721qiFBokz0oyfVtHktjnti0uybCAbe1z/p7B8C2PgeWR4NMtOqqG/twsBz2Sh2Ra/",
    "ueUxXoFIwQJuuWURsJYjb+aJSEFqETsmPAYZ+aMNiqozplCe/Kau7rJxxz66JzaR03esgH1EwQKBgQCaRGVy+rAJU91kUbc2epQp",
    "knWCFrD2Mg4RaXfnze89QkHtynt+byLOxUKQckLd5DuKePW7FXfA9oM2zrXCTLEGvlYd8jNPp6nHjvOUiVG0LX4l0qDoRpwwxf1N",
    "hwqp24wURvQFNaD2ht/isQGMczENUQR+nTWLz5odDK+5RKREsQKBgFq6t1e2CrCHKeMTzziOTVtLKhPFPlTgGE4C7SMfu9gqTxmh",
    "CXtCJCFNTEpDgdlGv1Wo49zGB5utGHDdEHI52zaK5oDfz7z7PKJZeGJL5iHkUxY7AYfyT49PujkYapljzMYFjIKxX5XqDFrDTWGg",
    "WLBvD4OGzXXLK8DB8D1MXmxS",
];

/// The instant of the tests, in seconds since 1970.
const NOW: i64 = 1_800_000_000;
const NOW_MS: u64 = 1_800_000_000_000;

/// An issuer with a key of each kind.
struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    random: SystemRandom,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let rsa = STANDARD.decode(RSA.concat()).unwrap();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            rsa: RsaKeyPair::from_pkcs8(&rsa).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(algorithm, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            random,
        }
    }

    fn jwk(&self, algorithm: &str, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match algorithm {
            "RS256" => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
                json!({"kty": "RSA", "kid": id, "n": text(&public.n), "e": text(&public.e)})
            }
            "ES256" => {
                let point = self.ec.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            _ => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": text(self.ed.public_key().as_ref())})
            }
        }
    }

    fn set(&self) -> KeySet {
        set(&json!([
            self.jwk("RS256", "r"),
            self.jwk("ES256", "e"),
            self.jwk("EdDSA", "d")
        ]))
    }

    /// A token with this header, signed as its `alg` says.
    fn sign(&self, header: &Value, payload: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(payload));
        let bytes = signed.as_bytes();
        let signature = match header["alg"].as_str() {
            Some("RS256") => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                let padding = &RSA_PKCS1_SHA256;
                self.rsa
                    .sign(padding, &self.random, bytes, &mut signature)
                    .unwrap();
                signature
            }
            Some("ES256") => self.ec.sign(&self.random, bytes).unwrap().as_ref().to_vec(),
            _ => self.ed.sign(bytes).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn set(keys: &Value) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn payload() -> Value {
    json!({
        "iss": "https://idp.example", "aud": "olla", "sub": "dana", "olla_policy": "dev",
        "exp": NOW + 600, "iat": NOW - 10, "nbf": NOW - 10,
    })
}

fn header(algorithm: &str, id: &str) -> Value {
    json!({"alg": algorithm, "kid": id, "typ": "JWT"})
}

fn plan() -> JwtPlan {
    JwtPlan {
        issuer: "https://idp.example".into(),
        audience: vec!["olla".into(), "olla-2".into()],
        jwks: JwksSource::Url("https://idp.example/jwks".into()),
        algorithms: vec![
            JwtAlgorithm::Rs256,
            JwtAlgorithm::Es256,
            JwtAlgorithm::EdDsa,
        ],
        name_claim: "sub".into(),
        policy_claim: "olla_policy".into(),
        policy: None,
        allow_admin: false,
        leeway: Duration::from_secs(30),
        refresh: Duration::from_secs(3600),
        stale_limit: Duration::from_secs(86400),
    }
}

fn reason(token: &str, plan: &JwtPlan, keys: &KeySet) -> String {
    match check(token.as_bytes(), plan, keys, NOW_MS) {
        Ok(_) => String::new(),
        Err(fault) => fault.to_string(),
    }
}

/// A key of a configuration, for tests.
pub(super) fn key(name: &str) -> Arc<Key> {
    let keeper = keeper("");
    let access = keeper.newest();
    let counters = keeper.book().of_token(&Arc::from(name), 0);
    let policy = access.policy("default").unwrap();
    let digest = KeyDigest::of(name.as_bytes());
    Arc::new(Key::of_token(Arc::from(name), digest, policy, counters, 0))
}

/// The keys of a configuration with an issuer.
fn keeper(more: &str) -> crate::access::AccessKeeper {
    let text = format!(
        "[access]\nenabled = true\n[access.policies.dev]\nmodels = [\"llama*\"]\n\
         [access.policies.boss]\nadmin = true\n[access.jwt]\nissuer = \"https://idp.example\"\n\
         audience = \"olla\"\njwks_url = \"https://idp.example/jwks\"\n{more}"
    );
    let env = Env::default();
    let admits = |_: &NameFilter, _: &str| true;
    let inputs = ConfigInputs {
        env: &env,
        cwd: std::path::Path::new("."),
        types: &[],
        admits: &admits,
    };
    let loaded = plan_from_str(&text, FileFormat::Toml, None, &inputs);
    let plan = loaded
        .plan
        .unwrap_or_else(|| panic!("{:?}", loaded.findings));
    crate::access::AccessKeeper::new(&plan.access)
}

#[test]
fn tokens_of_every_algorithm_are_valid() {
    let issuer = Issuer::new();
    let keys = issuer.set();
    for (algorithm, id) in [("RS256", "r"), ("ES256", "e"), ("EdDSA", "d")] {
        let token = issuer.sign(&header(algorithm, id), &payload());
        assert!(is_token(token.as_bytes()));
        let claims = check(token.as_bytes(), &plan(), &keys, NOW_MS).unwrap();
        assert_eq!(&*claims.name, "jwt:dana");
        assert_eq!(claims.policy.as_deref(), Some("dev"));
        assert_eq!(claims.expires_ms, NOW_MS + 600_000);
        // Without an id, the only key that fits.
        let token = issuer.sign(&json!({"alg": algorithm}), &payload());
        assert_eq!(reason(&token, &plan(), &keys), "");
        // Every flipped bit of the signature, and every cut, is found.
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&bytes));
        assert_eq!(reason(&forged, &plan(), &keys), "bad signature");
        let cut = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&bytes[..middle]));
        assert_eq!(reason(&cut, &plan(), &keys), "bad signature");
        assert_eq!(
            reason(&format!("{signed}."), &plan(), &keys),
            "bad signature"
        );
    }
}

#[test]
fn headers_choose_no_key_and_no_algorithm() {
    let issuer = Issuer::new();
    let keys = issuer.set();
    let (unknown, disallowed) = ("unknown signing key", |name: &str| {
        format!("algorithm {name} is not allowed")
    });
    let table = [
        (json!({"alg": "none", "kid": "r"}), disallowed("none")),
        (json!({"alg": "HS256", "kid": "r"}), disallowed("HS256")),
        (json!({"alg": "rs256", "kid": "r"}), disallowed("rs256")),
        (json!({"alg": "RS256 ", "kid": "r"}), disallowed("?")),
        (
            json!({"alg": "A234567890123456", "kid": "r"}),
            disallowed("A234567890123456"),
        ),
        (
            json!({"alg": "A2345678901234567", "kid": "r"}),
            disallowed("?"),
        ),
        (json!({"alg": "<b>", "kid": "r"}), disallowed("?")),
        (json!({"alg": "", "kid": "r"}), disallowed("?")),
        (json!({"alg": ["RS256"], "kid": "r"}), disallowed("?")),
        (json!({"kid": "r"}), disallowed("?")),
        (json!({"alg": "RS256", "kid": "e"}), unknown.to_owned()),
        (json!({"alg": "ES256", "kid": "r"}), unknown.to_owned()),
        (
            json!({"alg": "RS256", "kid": "../../r"}),
            unknown.to_owned(),
        ),
        (json!({"alg": "RS256", "kid": 1}), unknown.to_owned()),
        (json!({"alg": "RS256", "kid": null}), unknown.to_owned()),
        (
            json!({"alg": "RS256", "kid": "r", "crit": ["exp"]}),
            "unknown critical header".to_owned(),
        ),
        (
            json!({"alg": "none", "crit": []}),
            "unknown critical header".to_owned(),
        ),
        // Keys that come with the token are ignored.
        (
            json!({"alg": "EdDSA", "kid": "r", "jwk": issuer.jwk("EdDSA", "r")}),
            unknown.to_owned(),
        ),
        (
            json!({"alg": "RS256", "kid": "r", "jku": "https://evil", "x5u": "https://evil", "x5c": ["x"]}),
            String::new(),
        ),
    ];
    for (header, want) in table {
        let token = issuer.sign(&header, &payload());
        assert_eq!(reason(&token, &plan(), &keys), want, "{header}");
    }
    // An id that the set does not have may be in a newer one; a key that does not fit is not.
    let fault = |header: Value| {
        check(
            issuer.sign(&header, &payload()).as_bytes(),
            &plan(),
            &keys,
            NOW_MS,
        )
    };
    assert_eq!(
        fault(header("RS256", "new")),
        Err(TokenFault::UnknownKey { is_new: true })
    );
    assert_eq!(
        fault(header("RS256", "e")),
        Err(TokenFault::UnknownKey { is_new: false })
    );
    // Of the algorithms of the configuration only.
    let only = JwtPlan {
        algorithms: vec![JwtAlgorithm::EdDsa],
        ..plan()
    };
    let token = issuer.sign(&header("RS256", "r"), &payload());
    assert_eq!(reason(&token, &only, &keys), disallowed("RS256"));
}

#[test]
fn claims_are_checked_in_their_order() {
    let issuer = Issuer::new();
    let keys = issuer.set();
    let with = |changes: Value| {
        let mut claims = payload();
        for (name, value) in changes.as_object().unwrap() {
            if *value == json!("absent") {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    };
    let long = "x".repeat(129);
    let table = [
        (json!({"exp": "absent", "iss": "x"}), "no exp"),
        (json!({"exp": "4102444800"}), "no exp"),
        (json!({"exp": null}), "no exp"),
        (json!({"exp": NOW - 30, "nbf": NOW + 99}), "expired"),
        (json!({"exp": NOW - 29}), ""),
        (json!({"exp": -1}), "expired"),
        (json!({"exp": 1e300}), ""),
        (json!({"exp": u64::MAX}), ""),
        (json!({"nbf": NOW + 31, "iss": "x"}), "not yet valid"),
        (json!({"nbf": NOW + 30}), ""),
        (json!({"nbf": "soon"}), "not yet valid"),
        (json!({"iat": NOW + 31}), "not yet valid"),
        (json!({"iat": NOW as f64 + 30.5}), "not yet valid"),
        (json!({"nbf": "absent", "iat": "absent"}), ""),
        (
            json!({"iss": "https://idp.example/", "aud": "x"}),
            "wrong issuer",
        ),
        (json!({"iss": ["https://idp.example"]}), "wrong issuer"),
        (json!({"iss": "absent"}), "wrong issuer"),
        (json!({"aud": "Olla", "sub": ""}), "wrong audience"),
        (json!({"aud": "absent"}), "wrong audience"),
        (json!({"aud": []}), "wrong audience"),
        (json!({"aud": ["x", "olla-2"]}), ""),
        (json!({"sub": "", "olla_policy": 1}), "no sub"),
        (json!({"sub": 7}), "no sub"),
        (json!({"sub": "a b"}), "no sub"),
        (json!({"sub": "é"}), "no sub"),
        (json!({"sub": long}), "no sub"),
        (json!({"sub": long[..128]}), ""),
        (json!({"olla_policy": ["dev"]}), "unknown policy"),
    ];
    for (changes, want) in table {
        let token = issuer.sign(&header("EdDSA", "d"), &with(changes.clone()));
        assert_eq!(reason(&token, &plan(), &keys), want, "{changes}");
    }
}

#[test]
fn what_is_no_token_is_malformed() {
    let issuer = Issuer::new();
    let keys = issuer.set();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let good = issuer.sign(&header("EdDSA", "d"), &payload());
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = parts[..] else {
        panic!()
    };
    let huge = json!({"x": "y".repeat(7000), "exp": NOW + 600});
    let table = [
        format!("{head}.{body}.{signature}="),
        format!("{head}=.{body}.{signature}"),
        format!("{head}.{body}.{signature}!"),
        format!("{head}..{signature}"),
        format!("{head}.{}.{signature}", part("[1]")),
        format!("{head}.{}.{signature}", part("{\"a\":1")),
        format!(
            "{head}.{}.{signature}",
            part(&format!(
                "{{\"a\":{}1{}}}",
                "[".repeat(500),
                "]".repeat(500)
            ))
        ),
        issuer.sign(&header("EdDSA", "d"), &huge),
        "eyJ..".to_owned(),
    ];
    for token in table {
        assert!(is_token(token.as_bytes()), "{token}");
        assert_eq!(reason(&token, &plan(), &keys), "malformed", "{token}");
    }
    for other in ["eyJ", "eyJ.x", "eyJ.a.b.c", "xyJ.a.b", "", "Bearer eyJ.a.b"] {
        assert!(!is_token(other.as_bytes()), "{other}");
    }
}

#[test]
fn sets_pass_over_what_they_cannot_use() {
    let issuer = Issuer::new();
    let (rsa, ec, ed) = (
        issuer.jwk("RS256", "k"),
        issuer.jwk("ES256", "k"),
        issuer.jwk("EdDSA", "k"),
    );
    let with = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let short = URL_SAFE_NO_PAD.encode([255; 128]);
    let unusable = [
        json!(5),
        json!({}),
        json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0"}),
        json!({"kty": "EC", "crv": "P-521", "kid": "k", "x": "AA", "y": "AA"}),
        json!({"kty": "OKP", "crv": "X25519", "kid": "k", "x": "AA"}),
        with(&rsa, "n", json!(short)),
        with(&rsa, "n", json!("!")),
        with(&rsa, "d", json!("AA")),
        with(&rsa, "alg", json!("RS512")),
        with(&rsa, "alg", json!("HS256")),
        with(&rsa, "use", json!("enc")),
        with(&ec, "key_ops", json!(["sign"])),
        with(&ec, "key_ops", json!("verify")),
        with(&ec, "x", json!("AA")),
        with(&ed, "d", json!("AA")),
        with(&ed, "alg", json!("ES256")),
    ];
    for key in &unusable {
        let text = json!({ "keys": [key] }).to_string();
        assert_eq!(
            KeySet::parse(text.as_bytes()),
            Err(SetFault::NoKey),
            "{key}"
        );
    }
    let mut all = unusable.to_vec();
    all.push(with(&rsa, "use", json!("sig")));
    all.push(with(&ed, "key_ops", json!(["verify", "sign"])));
    let keys = set(&json!(all));
    assert_eq!(keys.len(), 2);
    // Of two with one id, the first.
    let token = |algorithm| issuer.sign(&header(algorithm, "k"), &payload());
    assert_eq!(reason(&token("RS256"), &plan(), &keys), "");
    assert_eq!(
        reason(&token("EdDSA"), &plan(), &keys),
        "unknown signing key"
    );
    // Without an id, several that fit are none.
    let two = set(&json!([issuer.jwk("EdDSA", "a"), issuer.jwk("EdDSA", "b")]));
    let nameless = issuer.sign(&json!({"alg": "EdDSA"}), &payload());
    assert_eq!(reason(&nameless, &plan(), &two), "unknown signing key");
}

#[test]
fn sets_are_bounded() {
    let issuer = Issuer::new();
    let key = issuer.jwk("EdDSA", "k");
    let parse = |text: String| KeySet::parse(text.as_bytes()).map(|set| set.len());
    let keys = |n: usize| json!({ "keys": vec![key.clone(); n] }).to_string();
    assert_eq!(parse(keys(100)), Ok(100));
    assert_eq!(parse(keys(101)), Err(SetFault::TooMany));
    assert_eq!(parse(keys(0)), Err(SetFault::NoKey));
    for text in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[]", "null"] {
        assert_eq!(parse(text.to_owned()), Err(SetFault::NoSet), "{text}");
    }
    let padded = |n: usize| format!("{}{}", " ".repeat(n), keys(1));
    let room = SET_BYTES_MAX - keys(1).len();
    assert_eq!(parse(padded(room)), Ok(1));
    assert_eq!(parse(padded(room + 1)), Err(SetFault::TooLong));
}

/// Checks a token as a core does.
fn ask(
    checker: &mut TokenChecker,
    keeper: &crate::access::AccessKeeper,
    token: &str,
    now_ms: u64,
) -> Result<Arc<Key>, TokenRefusal> {
    let access = keeper.newest();
    let rules = access.tokens.as_ref().unwrap();
    checker.check(
        rules,
        keeper.issuer(),
        token.as_bytes(),
        (keeper.book(), now_ms),
    )
}

#[test]
fn a_core_remembers_valid_tokens_until_something_changes() {
    let issuer = Issuer::new();
    let keeper = keeper("");
    let mut checker = TokenChecker::default();
    let token = issuer.sign(&header("EdDSA", "d"), &payload());
    let refused = ask(&mut checker, &keeper, &token, NOW_MS).unwrap_err();
    assert_eq!(refused, TokenRefusal::Unavailable, "no keys yet");
    keeper.issuer().replace(Some(Arc::new(issuer.set())));
    let first = ask(&mut checker, &keeper, &token, NOW_MS).unwrap();
    assert_eq!((&*first.name, &*first.policy.name), ("jwt:dana", "dev"));
    assert_eq!(first.expires_ms(), Some(NOW_MS + 600_000));
    let again = ask(&mut checker, &keeper, &token, NOW_MS + 599_999).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    // Within the leeway it is checked each time; beyond it, refused.
    let late = ask(&mut checker, &keeper, &token, NOW_MS + 629_999).unwrap();
    assert!(!Arc::ptr_eq(&first, &late) && Arc::ptr_eq(&first.counters, &late.counters));
    let past = ask(&mut checker, &keeper, &token, NOW_MS + 630_000).unwrap_err();
    assert_eq!(past, TokenRefusal::Fault(TokenFault::Expired));
    // Another token of the same name has the same counters.
    let mut claims = payload();
    claims["exp"] = json!(NOW + 700);
    let other = issuer.sign(&header("RS256", "r"), &claims);
    let other = ask(&mut checker, &keeper, &other, NOW_MS).unwrap();
    assert!(Arc::ptr_eq(&first.counters, &other.counters));
    // A set without its key, and none at all.
    keeper
        .issuer()
        .replace(Some(Arc::new(set(&json!([issuer.jwk("RS256", "r")])))));
    let refused = ask(&mut checker, &keeper, &token, NOW_MS).unwrap_err();
    assert_eq!(
        refused,
        TokenRefusal::Fault(TokenFault::UnknownKey { is_new: true })
    );
    keeper.issuer().replace(None);
    let refused = ask(&mut checker, &keeper, &token, NOW_MS).unwrap_err();
    assert_eq!(refused, TokenRefusal::Unavailable);
}

#[test]
fn policies_of_tokens() {
    let issuer = Issuer::new();
    let token = |policy: Option<&str>| {
        let mut claims = payload();
        claims.as_object_mut().unwrap().remove("olla_policy");
        if let Some(policy) = policy {
            claims["olla_policy"] = json!(policy);
        }
        issuer.sign(&header("EdDSA", "d"), &claims)
    };
    let outcome = |more: &str, policy: Option<&str>| {
        let keeper = keeper(more);
        keeper.issuer().replace(Some(Arc::new(issuer.set())));
        let found = ask(
            &mut TokenChecker::default(),
            &keeper,
            &token(policy),
            NOW_MS,
        );
        found.map(|key| (key.policy.name.to_string(), key.admin()))
    };
    let refused = |fault| Err(TokenRefusal::Fault(fault));
    let named = |name: &str, admin| Ok((name.to_owned(), admin));
    assert_eq!(outcome("", Some("dev")), named("dev", AdminRight::None));
    assert_eq!(
        outcome("", Some("nosuch")),
        refused(TokenFault::UnknownPolicy)
    );
    assert_eq!(outcome("", None), refused(TokenFault::NoPolicy));
    assert_eq!(
        outcome("policy = \"dev\"", None),
        named("dev", AdminRight::None)
    );
    assert_eq!(
        outcome("policy = \"dev\"", Some("nosuch")),
        refused(TokenFault::UnknownPolicy)
    );
    assert_eq!(outcome("", Some("boss")), named("boss", AdminRight::None));
    assert_eq!(
        outcome("allow_admin = true", Some("boss")),
        named("boss", AdminRight::Full)
    );
}

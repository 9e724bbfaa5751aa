use proptest::prelude::*;
use serde_json::json;

use super::*;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap()
}

fn details() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn entries()(
        id in any::<u128>(), org in any::<u128>(), micros in -4_000_000_000_000_000_i64..8_000_000_000_000_000,
        texts in prop::array::uniform7(".{0,10}"), detail in details(),
    ) -> AuditEntry {
        let [actor, actor_id, verb, object, outcome, request_id, source] = texts;
        AuditEntry {
            id: Uuid::from_u128(id), org_id: OrgId(Uuid::from_u128(org)), at: at(micros),
            actor, actor_id, verb, object, outcome, request_id, source, detail,
        }
    }
}

/// Entries that differ from this one in one place, among them such that a sloppy encoding would take for the same.
fn neighbours(entry: &AuditEntry) -> Vec<AuditEntry> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut AuditEntry)| {
        let mut other = entry.clone();
        change(&mut other);
        if other != *entry {
            all.push(other);
        }
    };
    with(&|e| e.id = Uuid::from_u128(e.id.as_u128() ^ 1));
    with(&|e| e.org_id = OrgId(Uuid::from_u128(e.org_id.0.as_u128() ^ 1)));
    with(&|e| e.at = at(e.at.as_microsecond() + 1));
    with(&|e| e.actor.push(' '));
    with(&|e| e.actor_id.push('x'));
    with(&|e| e.verb.push('x'));
    with(&|e| e.object.push('x'));
    with(&|e| e.outcome.push('x'));
    with(&|e| e.request_id.push('x'));
    with(&|e| e.source.push('x'));
    // A letter that crosses the border of two fields.
    with(&|e| {
        let last = e.actor.pop();
        e.actor_id.extend(last);
    });
    with(&|e| std::mem::swap(&mut e.actor, &mut e.actor_id));
    with(&|e| std::mem::swap(&mut e.verb, &mut e.object));
    with(&|e| e.detail = json!([e.detail.clone()]));
    with(&|e| e.detail = json!({ "": e.detail.clone() }));
    with(&|e| e.detail = Value::String(e.detail.to_string()));
    with(&|e| e.detail = Value::Null);
    with(&|e| e.detail = json!("null"));
    with(&|e| e.detail = json!({}));
    with(&|e| e.detail = json!([]));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn entries_that_differ_have_different_bytes(entry in entries()) {
        let bytes = entry.encode().unwrap();
        for other in neighbours(&entry) {
            prop_assert_ne!(&other.encode().unwrap(), &bytes, "{:?}", other);
        }
    }

    #[test]
    fn the_json_of_an_export_gives_the_same_bytes(entry in entries()) {
        let text = serde_json::to_string(&entry).unwrap();
        let read: AuditEntry = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read.encode().unwrap(), entry.encode().unwrap());
        let pretty: AuditEntry = serde_json::from_str(&serde_json::to_string_pretty(&entry).unwrap()).unwrap();
        prop_assert_eq!(pretty.encode().unwrap(), entry.encode().unwrap());
    }

    #[test]
    fn the_detail_can_be_read_back(detail in details()) {
        let mut bytes = Vec::new();
        write(&detail, &mut bytes).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), detail);
    }
}

fn entry(detail: Value) -> AuditEntry {
    AuditEntry {
        id: Uuid::from_u128(1),
        org_id: OrgId(Uuid::from_u128(2)),
        at: at(3),
        actor: "a".to_owned(),
        actor_id: "u/1".to_owned(),
        verb: "v".to_owned(),
        object: "o/1".to_owned(),
        outcome: "done".to_owned(),
        request_id: String::new(),
        source: "::1".to_owned(),
        detail,
    }
}

#[test]
fn the_encoding_is_the_documented_one() {
    let mut want = b"OPSC-AUDIT-ENTRY1".to_vec();
    let mut field = |bytes: &[u8]| {
        want.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        want.extend_from_slice(bytes);
    };
    field(&1_u128.to_be_bytes());
    field(&2_u128.to_be_bytes());
    field(&3_i64.to_be_bytes());
    for text in ["a", "u/1", "v", "o/1", "done", "", "::1", r#"{"a":[1,-2,18446744073709551615],"b":"ü\n"}"#]
    {
        field(text.as_bytes());
    }
    let detail = json!({ "b": "ü\n", "a": [1, -2, u64::MAX] });
    assert_eq!(entry(detail).encode().unwrap(), want);
}

#[test]
fn what_could_be_written_in_several_ways_is_refused() {
    for detail in ["1.0", "1e2", "-0.0", "[{\"a\":0.5}]", "18446744073709551616"] {
        let detail: Value = serde_json::from_str(detail).unwrap();
        assert_eq!(entry(detail.clone()).encode(), Err(NotCanonical::Number), "{detail}");
        assert!(entry(whole(detail)).encode().is_ok());
    }
    let mut fine = entry(Value::Null);
    fine.at = Timestamp::new(1, 1_001).unwrap();
    assert_eq!(fine.encode(), Err(NotCanonical::Time));
}

#[test]
fn an_entry_with_more_than_is_hashed_is_not_read() {
    let mut value = serde_json::to_value(entry(Value::Null)).unwrap();
    value["comment"] = json!("not covered");
    assert!(serde_json::from_value::<AuditEntry>(value).is_err());
}

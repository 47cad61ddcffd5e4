//! The admission policies of `examples/kubernetes`, as an API server from 1.30 on evaluates them: the API server of the tests
//! is older and knows none, so the expressions are run here, over the objects that it makes of real requests.

use cel::{
    Context, Program, Value as Cel,
    objects::{Key, Map},
};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicySpec,
};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

/// A write, as an admission plugin is shown it.
pub struct Request<'a> {
    /// `system:serviceaccount:…`
    pub user: &'a str,
    /// As it would be written.
    pub object: &'a Value,
    /// As it is; null: there is none.
    pub old: &'a Value,
}

/// The policies, and the service accounts of the namespace.
pub struct Policies {
    policies: Vec<(ValidatingAdmissionPolicySpec, ValidatingAdmissionPolicyBinding)>,
    accounts: Vec<Value>,
}

impl Policies {
    pub fn of_the_example(accounts: &[Value]) -> Self {
        let text = include_str!("../../examples/kubernetes/admission-policy.yaml");
        let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind).cloned();
        let bindings: Vec<ValidatingAdmissionPolicyBinding> =
            of("ValidatingAdmissionPolicyBinding").map(known).collect();
        let with_binding = |policy: ValidatingAdmissionPolicy| {
            let bound =
                |b: &&ValidatingAdmissionPolicyBinding| b.spec.as_ref().unwrap().policy_name == policy.metadata.name;
            let binding = bindings.iter().find(bound).expect("a binding");
            (policy.spec.unwrap(), binding.clone())
        };
        let policies: Vec<_> = of("ValidatingAdmissionPolicy").map(known).map(with_binding).collect();
        assert_eq!((policies.len(), objects.len()), (2, 4));
        Self { policies, accounts: accounts.to_vec() }
    }

    /// Why it is refused; nothing: it is not.
    pub fn refuse(&self, request: &Request<'_>) -> Vec<String> {
        let concerned = self.policies.iter().filter(|(policy, _)| concerns(policy, request));
        concerned.flat_map(|(policy, binding)| self.by(policy, binding, request)).collect()
    }

    fn by(
        &self,
        policy: &ValidatingAdmissionPolicySpec,
        binding: &ValidatingAdmissionPolicyBinding,
        request: &Request<'_>,
    ) -> Vec<String> {
        let binding = binding.spec.as_ref().unwrap();
        assert_eq!(binding.validation_actions.as_deref(), Some(&["Deny".to_string()][..]));
        assert_eq!(policy.failure_policy.as_deref(), Some("Fail"));
        let kind = policy.param_kind.as_ref().unwrap();
        assert_eq!((kind.api_version.as_deref(), kind.kind.as_deref()), (Some("v1"), Some("ServiceAccount")));
        let from = binding.param_ref.as_ref().unwrap();
        // No namespace: the object's. None there: nothing to say.
        assert_eq!((from.namespace.as_deref(), from.parameter_not_found_action.as_deref()), (None, Some("Allow")));
        let labels = from.selector.as_ref().unwrap().match_expressions.as_ref().unwrap();
        assert_eq!((labels.len(), labels[0].operator.as_str()), (1, "Exists"));
        let fits = |account: &&Value| {
            account["metadata"]["namespace"] == request.object["metadata"]["namespace"]
                && account["metadata"]["labels"].get(&labels[0].key).is_some()
        };
        self.accounts.iter().filter(fits).flat_map(|account| validate(policy, account, request)).collect()
    }
}

/// As Kubernetes takes it for, with no field that it does not know.
fn known<T: serde::de::DeserializeOwned + serde::Serialize>(object: Value) -> T {
    let taken: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(&taken).unwrap(), object, "there is no such field");
    taken
}

fn operation(request: &Request<'_>) -> &'static str {
    if request.old.is_null() { "CREATE" } else { "UPDATE" }
}

fn concerns(policy: &ValidatingAdmissionPolicySpec, request: &Request<'_>) -> bool {
    let (group, resource) = match request.object["kind"].as_str() {
        Some("Pod") => ("", "pods"),
        Some("Lease") => ("coordination.k8s.io", "leases"),
        other => panic!("{other:?}"),
    };
    let has = |list: &Option<Vec<String>>, text: &str| list.iter().flatten().any(|t| t == text);
    let rules = policy.match_constraints.as_ref().unwrap().resource_rules.as_ref().unwrap();
    rules.iter().any(|rule| {
        has(&rule.api_groups, group) && has(&rule.resources, resource) && has(&rule.operations, operation(request))
    })
}

/// By one account's policy: what it refuses.
fn validate(policy: &ValidatingAdmissionPolicySpec, account: &Value, request: &Request<'_>) -> Vec<String> {
    let mut context = Context::default();
    context.add_variable("object", request.object).unwrap();
    context.add_variable("oldObject", request.old).unwrap();
    context.add_variable("params", account).unwrap();
    let asked = json!({
        "operation": operation(request), "namespace": request.object["metadata"]["namespace"],
        "userInfo": {"username": request.user}
    });
    context.add_variable("request", &asked).unwrap();
    if policy
        .match_conditions
        .iter()
        .flatten()
        .any(|condition| run(&condition.expression, &context) == Cel::Bool(false))
    {
        return Vec::new();
    }
    let mut variables: HashMap<Key, Cel> = HashMap::new();
    for variable in policy.variables.iter().flatten() {
        let value = run(&variable.expression, &context);
        variables.insert(Key::String(Arc::new(variable.name.clone())), value);
        let all = Cel::Map(Map { map: Arc::new(variables.clone()) });
        context.add_variable_from_value("variables", all);
    }
    let wrong = policy.validations.iter().flatten().filter(|v| run(&v.expression, &context) != Cel::Bool(true));
    wrong.map(|validation| validation.message.clone().unwrap()).collect()
}

/// An expression that fails is a mistake in the policy, in whichever way it would be taken.
fn run(expression: &str, context: &Context<'_, '_>) -> Cel {
    let program = Program::compile(expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
    program.execute(context).unwrap_or_else(|e| panic!("{expression}: {e}"))
}

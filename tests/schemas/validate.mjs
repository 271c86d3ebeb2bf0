// Reads custom resources as a JSON list and prints as JSON, for each, the list of what a cluster would refuse, or null where its kind
// is not known.
import { readFileSync } from "node:fs";
import { formats } from "@kubernetes-models/validate";
import { Ajv } from "ajv";

const NOT_THERE = ["ERR_MODULE_NOT_FOUND", "ERR_PACKAGE_PATH_NOT_EXPORTED"]; // no such kind, no such version

const PACKAGES = {
  "argoproj.io": ["argo-cd", "argo-rollouts"],
  "keda.sh": ["keda"],
  "monitoring.coreos.com": ["prometheus-operator"],
};

// Kinds that no package has: JSON Schema, which refuses unknown fields itself.
const OWN = { "policy.networking.k8s.io/v1alpha2/ClusterNetworkPolicy": "cluster-network-policy.json" };

async function model(apiVersion, kind) {
  for (const name of PACKAGES[apiVersion.split("/")[0]] ?? []) {
    try {
      return (await import(`@kubernetes-models/${name}/${apiVersion}/${kind}`))[kind];
    } catch (error) {
      if (!NOT_THERE.includes(error.code)) throw error;
    }
  }
  return null;
}

// Return a copy of `value` that notes in `objects`, for each object in it, which of its fields somebody looks at.
function watched(value, path, objects) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map((part, place) => watched(part, `${path}/${place}`, objects));
  const seen = new Set();
  objects.push({ path, keys: Object.keys(value), seen });
  const parts = Object.entries(value).map(([key, part]) => [key, watched(part, `${path}/${key}`, objects)]);
  return new Proxy(Object.fromEntries(parts), {
    get(target, key) {
      seen.add(key);
      return target[key];
    },
    ownKeys(target) {
      Object.keys(target).forEach((key) => seen.add(key));
      return Reflect.ownKeys(target);
    },
  });
}

// The packages' validators are compiled, and take fields that the kind does not have. They look at each field that it has and at no
// other, so what they have passed by is unknown; an object of which they have looked at nothing may hold anything.
function refused(model, object) {
  const objects = [];
  let errors = [];
  try {
    model.prototype.validate.call(watched(object, "", objects));
  } catch (error) {
    if (!Array.isArray(error.errors)) throw error;
    errors = error.errors;
  }
  const unknown = objects
    .filter(({ seen }) => seen.size > 0)
    .flatMap(({ path, keys, seen }) => keys.filter((key) => !seen.has(key)).map((key) => `${path}/${key} is unknown`));
  return [...errors.map(({ instancePath, message }) => `${instancePath} ${message}`), ...unknown];
}

function refusedByOwn(file, object) {
  const schema = JSON.parse(readFileSync(new URL(file, import.meta.url), "utf8"));
  const validate = new Ajv({ allErrors: true, formats }).compile(schema);
  validate(object);
  return (validate.errors ?? []).map(({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`);
}

async function problems(object) {
  const file = OWN[`${object.apiVersion}/${object.kind}`];
  if (file) return refusedByOwn(file, object);
  const found = await model(object.apiVersion, object.kind);
  return found ? refused(found, object) : null;
}

const objects = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(await Promise.all(objects.map(problems))));

// The rules are ESLint's own; what is a global of a browser is left to TypeScript.
const rules = {
  "array-callback-return": "error",
  "constructor-super": "error",
  eqeqeq: "error",
  "no-const-assign": "error",
  "no-dupe-keys": "error",
  "no-empty": ["error", { allowEmptyCatch: true }],
  "no-implicit-globals": "error",
  "no-shadow": "error",
  "no-unreachable": "error",
  "no-unused-vars": "error",
  "no-var": "error",
  "object-shorthand": "error",
  "prefer-const": "error",
};
export default [{ files: ["*.js"], rules }];

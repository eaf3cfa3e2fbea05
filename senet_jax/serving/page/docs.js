// The API in words, from its OpenAPI description.
import { need } from './ask.js';

const api = await need('/openapi.json');
const main = document.querySelector('main');

const element = (name, ...children) => {
  const made = document.createElement(name);
  made.append(...children);
  return made;
};
const nameOf = (reference) => reference.split('/').pop();
const typeOf = (schema) => {
  if (schema.$ref) return nameOf(schema.$ref);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(' or ');
  if (schema.type === 'array') return `list of ${typeOf(schema.items)}`;
  return schema.format === 'binary' ? 'file' : schema.type;
};
const table = (head, rows) => element('table',
  element('tr', ...head.map((text) => element('th', text))),
  ...rows.map((row) => element('tr', ...row.map((text, i) => element('td', i ? text : element('code', text))))));
const bodies = (content) => Object.entries(content).map(([type, { schema }]) => [
  type, schema.properties ? Object.entries(schema.properties).map(([k, v]) => `${k}: ${typeOf(v)}`).join(', ') : typeOf(schema)]);

document.title = api.info.title;
document.querySelector('h1').textContent = api.info.title;
document.querySelector('#about').textContent = api.info.description;
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, { summary, parameters, requestBody, responses }] of Object.entries(methods)) {
    const query = (parameters ?? []).map(({ name, schema }) => `${name}=${schema.default}`).join('&');
    const url = `${location.origin}${path}${query && `?${query}`}`;
    main.append(element('h2', `${method.toUpperCase()} ${path}`), element('p', summary));
    main.append(element('pre', `curl ${requestBody ? '--data-binary @photo.jpg ' : ''}'${url}'`));
    if (parameters) {
      main.append(table(['name', 'type', 'default', ''], parameters.map(
        ({ name, schema, description }) => [name, typeOf(schema), String(schema.default), description ?? ''])));
    }
    if (requestBody) main.append(table(['body', 'type'], bodies(requestBody.content)));
    main.append(table(['status', 'type', ''], Object.entries(responses).map(([status, { description, content }]) => [
      status, Object.values(content).map(({ schema }) => typeOf(schema)).join(), description])));
  }
}
for (const [name, { description, properties }] of Object.entries(api.components.schemas)) {
  main.append(element('h2', name), element('p', (description ?? '').split('\n\n')[0]), table(['field', 'type', ''],
    Object.entries(properties).map(([field, schema]) => [field, typeOf(schema), schema.description ?? ''])));
}

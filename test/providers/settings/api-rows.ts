import type { Row } from "./row.ts";

const list = "after_connect: [{ select: { list: /entries } }]";

export const lookupRows: Row[] = [
  { setting: "after_connect.pointer", file: "after_connect: [{ pointer: /mail }]", shows: { account: ["1", "m@x"] } },
  {
    setting: "after_connect.label",
    file: "after_connect: [{ label: /mail }]",
    shows: { "account: label": ["", "m@x"] },
  },
  {
    setting: "after_connect.value",
    base: "bare",
    file: "{ response: { capture: { host: /host } }, after_connect: [{ value: 'at {response.host}' }] }",
    instead: "{ response: { capture: { host: /host } } }",
    shows: { "account, without a request": ["", "at eu1"] },
  },
  {
    setting: "after_connect.capture",
    file: "after_connect: [{ capture: { site: /mail } }]",
    shows: { "account: captured site": ["", "m@x"] },
  },
  {
    setting: "after_connect.capture.pointer",
    file: "after_connect: [{ capture: { site: { pointer: /mail, pattern: '.' } } }]",
    instead: "after_connect: [{ capture: { site: { pointer: /id, pattern: '.' } } }]",
    shows: { "account: captured site": ["1", "m@x"] },
  },
  {
    setting: "after_connect.capture.pattern",
    file: "after_connect: [{ capture: { site: { pointer: /mail, pattern: '^[0-9]+$' } } }]",
    instead: "after_connect: [{ capture: { site: { pointer: /mail, pattern: '@' } } }]",
    shows: { "account: captured site": ["m@x", ""] },
  },
  {
    setting: "after_connect.capture.enum",
    file: "after_connect: [{ capture: { site: { pointer: /mail, enum: [n@x] } } }]",
    instead: "after_connect: [{ capture: { site: { pointer: /mail, enum: [m@x, n@x] } } }]",
    shows: { "account: captured site": ["m@x", ""] },
  },
  { setting: "after_connect.select.list", file: list, shows: { account: ["1", "a"] } },
  {
    setting: "after_connect.select.where",
    file: "after_connect: [{ select: { list: /entries, where: /kind, equals: y } }]",
    instead: "after_connect: [{ select: { list: /entries, where: /name, equals: y } }]",
    shows: { account: ["", "b"] },
  },
  {
    setting: "after_connect.select.equals",
    file: "after_connect: [{ select: { list: /entries, where: /kind, equals: y } }]",
    instead: list,
    shows: { account: ["a", "b"] },
  },
];

export const apiRows: Row[] = [
  {
    setting: "api.base_url",
    file: "api: { base_url: 'https://api.example/v2/{client.id}' }",
    shows: { "api: address": ["https://api.example", "https://api.example/v2/app-1"] },
  },
  {
    setting: "api.authorization",
    file: "api: { authorization: 'Token {access_token}' }",
    shows: {
      "api: authorization": ["Bearer at-0", "Token at-0"],
      "lookup: authorization": ["Bearer at-0", "Token at-0"],
    },
  },
  {
    setting: "api.authorization.header",
    file: "api: { authorization: { header: X-Token, value: '{access_token}' } }",
    instead: "api: { authorization: { header: X-Access, value: '{access_token}' } }",
    shows: {
      "api: x-token": ["", "at-0"],
      "api: x-access": ["at-0", ""],
      "lookup: x-token": ["", "at-0"],
      "lookup: x-access": ["at-0", ""],
    },
  },
  {
    setting: "api.authorization.value",
    file: "api: { authorization: { header: X-Token, value: 'Token {access_token}' } }",
    instead: "api: { authorization: { header: X-Token, value: '{access_token}' } }",
    shows: { "api: x-token": ["at-0", "Token at-0"], "lookup: x-token": ["at-0", "Token at-0"] },
  },
  {
    setting: "api.headers",
    file: "api: { headers: { X-Client: '{client.id}' } }",
    shows: { "api: x-client": ["", "app-1"], "lookup: x-client": ["", "app-1"] },
  },
];

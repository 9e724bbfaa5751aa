-- What a step told later ones: a JSON object, word for word.
alter table runs add column outputs json;

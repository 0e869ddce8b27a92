-- Run at every start; changes nothing where all of it is there.
CREATE DATABASE IF NOT EXISTS shop;
CREATE USER IF NOT EXISTS shop@'%' IDENTIFIED BY 'shop';
CREATE USER IF NOT EXISTS shop@localhost IDENTIFIED BY 'shop';
GRANT ALL ON shop.* TO shop@'%';
GRANT ALL ON shop.* TO shop@localhost;

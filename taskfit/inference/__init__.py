"""Requests and the engines that answer them."""
